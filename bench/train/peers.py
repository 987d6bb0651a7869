"""The peers' sides of the cases of bench-train: python peers.py PEER RECIPE.

Each prints {"quality": ...} when it has learnt, and then {"rate": ...} in rows
a second for every line that it reads. What the peers get, so that all is fair:
float32 data in memory, shuffled for every epoch, the same initialization and
epsilon, their own defaults for threads.
"""

import ctypes
import json
import os
import sys
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np


class Recipe:
    def __init__(self, path):
        with open(path) as file:
            vars(self).update(json.load(file))
        self.rows = self.Rows
        self.inputs, self.outputs = self.Layers[0], self.Layers[-1]

    def load(self):
        table = np.fromfile(self.Data, "<f4").reshape(-1, self.inputs + 1)
        x, y = np.ascontiguousarray(table[:, :-1]), table[:, -1]
        if self.outputs > 1:
            y = y.astype(np.int64)
        n = self.Rows
        return x[:n], y[:n], x[n:], y[n:]


class PyTorch:
    """A plain loop over slices of a permutation: a DataLoader only adds to it."""

    def __init__(self, recipe):
        import torch

        self.torch, self.recipe, self.rows = torch, recipe, recipe.rows
        self.x, self.y, self.held, self.held_y = map(torch.from_numpy, recipe.load())

    def start(self, seed):
        torch, recipe = self.torch, self.recipe
        torch.manual_seed(seed)
        layers = []
        for inputs, outputs in zip(recipe.Layers, recipe.Layers[1:]):
            layer = torch.nn.Linear(inputs, outputs)
            torch.nn.init.xavier_uniform_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
            layers += [layer, torch.nn.ReLU()]
        self.network = torch.nn.Sequential(*layers[:-1])
        parameters = self.network.parameters()
        if recipe.outputs == 1:
            self.y = self.y.reshape(-1, 1)
            self.loss = lambda z, y: torch.nn.functional.mse_loss(z, y) / 2
            self.optimizer = torch.optim.SGD(parameters, lr=recipe.LearningRate)
        else:
            self.loss = torch.nn.functional.cross_entropy
            # fused: one kernel for all of Adam, the fastest that there is.
            self.optimizer = torch.optim.Adam(parameters, lr=recipe.LearningRate, eps=1e-7, fused=True)

    def repeat(self, epochs):
        for _ in range(epochs):
            if self.recipe.Batch == 0:
                self.step(self.x, self.y)
                continue
            order = self.torch.randperm(self.rows)
            for rows in order.split(self.recipe.Batch):
                self.step(self.x[rows], self.y[rows])

    def step(self, x, y):
        self.optimizer.zero_grad()
        self.loss(self.network(x), y).backward()
        self.optimizer.step()

    def quality(self):
        with self.torch.no_grad():
            if self.recipe.outputs == 1:
                return self.loss(self.network(self.x), self.y).item()
            return (self.network(self.held).argmax(1) == self.held_y).float().mean().item()


class Keras:
    def __init__(self, recipe):
        import keras

        self.keras, self.recipe, self.rows = keras, recipe, recipe.rows
        self.x, self.y, self.held, self.held_y = recipe.load()

    def start(self, seed):
        keras, recipe = self.keras, self.recipe
        keras.utils.set_random_seed(seed)
        keras.backend.clear_session()
        hidden = [keras.layers.Dense(n, activation="relu") for n in recipe.Layers[1:-1]]
        last = keras.layers.Dense(recipe.outputs, activation="softmax")
        self.network = keras.Sequential([keras.Input((recipe.inputs,)), *hidden, last])
        self.network.compile(
            optimizer=keras.optimizers.Adam(recipe.LearningRate),
            loss="sparse_categorical_crossentropy",
            # Three times as fast as one step at a time in the small case; more
            # gives no more.
            steps_per_execution=min(64, -(-recipe.rows // recipe.Batch)),
        )

    def repeat(self, epochs):
        self.network.fit(self.x, self.y, batch_size=self.recipe.Batch, epochs=epochs, shuffle=True, verbose=0)

    def quality(self):
        answers = self.network.predict(self.held, batch_size=1024, verbose=0)
        return float((answers.argmax(1) == self.held_y).mean())


class ScikitLearn:
    def __init__(self, recipe):
        self.recipe, self.rows = recipe, recipe.rows
        self.x, self.y, self.held, self.held_y = recipe.load()
        warnings.filterwarnings("ignore")  # that it has not converged

    def start(self, seed):
        from sklearn.neural_network import MLPClassifier

        recipe = self.recipe
        self.network = MLPClassifier(
            hidden_layer_sizes=recipe.Layers[1:-1],
            batch_size=recipe.Batch,
            learning_rate_init=recipe.LearningRate,
            epsilon=1e-7,
            alpha=0,
            n_iter_no_change=10**9,
            random_state=seed,
            warm_start=True,
        )

    def repeat(self, epochs):
        self.network.set_params(max_iter=epochs)
        self.network.fit(self.x, self.y)

    def quality(self):
        return float(self.network.score(self.held, self.held_y))


class Pandas:
    def __init__(self, recipe):
        self.recipe, self.rows, recipe.Seeds = recipe, recipe.rows, 1

    def start(self, seed):
        pass

    def repeat(self, times):
        import pandas

        for _ in range(max(1, times)):
            self.table = pandas.read_csv(self.recipe.Data, engine="c")

    def quality(self):
        return float(self.table["y"].mean())


class Sgemm:
    """Nothing but the matrix products of a step, by the system's OpenBLAS."""

    def __init__(self, recipe):
        self.recipe, self.rows = recipe, recipe.rows
        self.blas = ctypes.CDLL("libopenblas.so.0")

    def start(self, seed):
        layers, rows = self.recipe.Layers, self.recipe.Batch
        draw = np.random.default_rng(seed).standard_normal
        self.x = [draw((rows, n), "f4") for n in layers]
        self.w = [draw((n, m), "f4") for m, n in zip(layers, layers[1:])]
        self.products = []
        for i, w in enumerate(self.w):
            x, y = self.x[i], self.x[i + 1]
            self.products.append((False, True, x, w, y.copy()))
            self.products.append((True, False, y, x, w.copy()))
            if i > 0:
                self.products.append((False, False, y, w, x.copy()))

    def repeat(self, epochs):
        for _ in range(epochs * (self.rows // self.recipe.Batch)):
            for product in self.products:
                self.multiply(*product)

    def multiply(self, transpose_a, transpose_b, a, b, c):
        pointer = lambda m: m.ctypes.data_as(ctypes.c_void_p)
        one, zero = ctypes.c_float(1), ctypes.c_float(0)
        self.blas.cblas_sgemm(
            101, 112 if transpose_a else 111, 112 if transpose_b else 111,
            c.shape[0], c.shape[1], a.shape[0 if transpose_a else 1],
            one, pointer(a), a.shape[1], pointer(b), b.shape[1], zero, pointer(c), c.shape[1],
        )  # fmt: skip

    def quality(self):
        return 0.0


PEERS = {
    "pytorch": PyTorch,
    "keras": Keras,
    "scikit-learn": ScikitLearn,
    "pandas": Pandas,
    "sgemm-of-openblas": Sgemm,
}


def main(name, path):
    peer = PEERS[name](Recipe(path))
    qualities = []
    for seed in range(peer.recipe.Seeds):
        peer.start(seed)
        peer.repeat(peer.recipe.Epochs)
        qualities.append(peer.quality())
    print(json.dumps({"quality": sum(qualities) / len(qualities)}), flush=True)
    times = 0
    for _ in sys.stdin:
        if times == 0:
            begin = time.perf_counter()
            peer.repeat(1)
            times = 1 + int(1 / (time.perf_counter() - begin))
        begin = time.perf_counter()
        peer.repeat(times)
        rate = times * peer.rows / (time.perf_counter() - begin)
        print(json.dumps({"rate": rate}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
