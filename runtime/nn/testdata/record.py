"""Records what Keras computes, in float64, for the tests of package nn.

    python3 -m venv venv && venv/bin/pip install keras jax numpy
    venv/bin/python record.py > keras.json
"""

import json
import os
import sys

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_ENABLE_X64"] = "1"

import keras  # noqa: E402
import numpy as np  # noqa: E402

keras.config.set_floatx("float64")
random = np.random.default_rng(1)
ROWS, BATCH, INPUTS, HIDDEN, OUTPUTS, STEPS = 40, 8, 3, 4, 2, 100


def numbers(a):
    """Rounds to float32, in which package nn computes, and flattens."""
    return [float(np.float32(v)) for v in np.asarray(a).ravel()]


def draw(*shape):
    return np.float64(np.float32(random.normal(size=shape)))


def tensors(model):
    """The weights in the order of nn.Network.Tensors, kernels as outputs x inputs."""
    return [numbers(w.T if w.ndim == 2 else w) for layer in model.layers for w in layer.get_weights()]


def fit(model, x, y, weights=None):
    """Trains STEPS batches, and returns losses and weights after some of them."""
    losses, after = [], {}
    for step in range(1, STEPS + 1):
        at = (step - 1) * BATCH % ROWS
        rows = slice(at, at + BATCH)
        loss = model.train_on_batch(x[rows], y[rows], None if weights is None else weights[rows])
        losses.append(float(loss))
        if step in (1, 10, STEPS):
            after[step] = tensors(model)
        model.reset_metrics()
    return {"losses": losses, "after": after}


def optimizers():
    x, y = draw(ROWS, INPUTS), draw(ROWS, OUTPUTS)
    kernels = [draw(INPUTS, HIDDEN) / 2, draw(HIDDEN, OUTPUTS) / 2]
    cases = [
        ("SGD", {}),
        ("SGD", {"momentum": 0.9}),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("SGD", {"clipnorm": 0.1}),
        ("SGD", {"global_clipnorm": 0.1}),
        ("SGD", {"clipvalue": 0.05}),
        ("RMSprop", {}),
        ("RMSprop", {"rho": 0.8, "momentum": 0.5, "centered": True, "epsilon": 1e-5}),
        ("Adam", {}),
        ("Adam", {"beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-5}),
        ("AdamW", {}),
        ("AdamW", {"weight_decay": 0.1}),
    ]
    recorded = []
    for name, options in cases:
        model = keras.Sequential([
            keras.Input((INPUTS,)),
            keras.layers.Dense(HIDDEN, activation="tanh"),
            keras.layers.Dense(OUTPUTS),
        ])
        model.set_weights([kernels[0], np.zeros(HIDDEN), kernels[1], np.zeros(OUTPUTS)])
        model.compile(optimizer=getattr(keras.optimizers, name)(learning_rate=0.01, **options), loss="mse")
        recorded.append({"rule": name, "options": options, **fit(model, x, y)})
    return {"x": numbers(x), "y": numbers(y), "weights": [numbers(k.T) for k in kernels], "cases": recorded}


def network():
    """All layers but Dropout, penalties, weights of rows, and a schedule."""
    classes = 3
    x, y = draw(ROWS, INPUTS), random.integers(0, classes, ROWS)
    weights = np.array([1.0, 2.5, 0.5])[y]
    kernels = [draw(INPUTS, HIDDEN), draw(HIDDEN, classes)]
    model = keras.Sequential([
        keras.Input((INPUTS,)),
        keras.layers.Dense(HIDDEN, activation="elu", use_bias=False, kernel_regularizer=keras.regularizers.L1L2(l1=0.01, l2=0.02)),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.Dense(classes, activation="softmax"),
    ])
    bn = [np.ones(HIDDEN), np.zeros(HIDDEN), np.zeros(HIDDEN), np.ones(HIDDEN)]
    model.set_weights([kernels[0], *bn, kernels[1], np.zeros(classes)])
    schedule = keras.optimizers.schedules.CosineDecay(0.0, STEPS - 10, alpha=0.1, warmup_target=0.05, warmup_steps=10)
    model.compile(optimizer=keras.optimizers.Adam(schedule), loss="sparse_categorical_crossentropy")
    recorded = fit(model, x, y, weights)
    predictions = model.predict(x, verbose=0)
    return {"x": numbers(x), "y": numbers(y), "rowWeights": numbers(weights), "weights": [numbers(k.T) for k in kernels],
            "predictions": numbers(predictions), **recorded}


def losses():
    z, y = 2 * draw(6, 3), draw(6, 3)
    bits, classes = random.integers(0, 2, (6, 3)), random.integers(0, 3, 6)
    def mean(loss, target):
        return float(loss(target, z))
    return {
        "z": numbers(z), "y": numbers(y), "bits": numbers(bits), "classes": numbers(classes),
        "values": {
            "MeanSquaredError": mean(keras.losses.MeanSquaredError(), y),
            "MeanAbsoluteError": mean(keras.losses.MeanAbsoluteError(), y),
            "Huber": mean(keras.losses.Huber(), y),
            "BinaryCrossentropy": mean(keras.losses.BinaryCrossentropy(from_logits=True), np.float64(bits)),
            "CategoricalCrossentropy": mean(keras.losses.SparseCategoricalCrossentropy(from_logits=True), classes),
        },
    }


def activations():
    z = np.linspace(-4, 4, 17)
    def of(f):
        return numbers(f(z))
    return {"z": numbers(z), "values": {
        "ReLU": of(keras.activations.relu),
        "LeakyReLU": of(keras.activations.leaky_relu),
        "ELU": of(keras.activations.elu),
        "GELU": of(lambda v: keras.activations.gelu(v, approximate=False)),
        "Sigmoid": of(keras.activations.sigmoid),
        "Tanh": of(keras.activations.tanh),
        "Softmax": of(lambda v: keras.activations.softmax(v[None, :])),
    }}


def schedules():
    s = keras.optimizers.schedules
    made = {
        "Exponential": s.ExponentialDecay(0.1, 30, 0.5),
        "Step": s.ExponentialDecay(0.1, 30, 0.5, staircase=True),
        "Cosine": s.CosineDecay(0.1, 80, alpha=0.01),
        "Cosine with warm-up": s.CosineDecay(0.0, 70, alpha=0.01, warmup_target=0.1, warmup_steps=20),
    }
    return {name: [float(f(step)) for step in range(0, 101, 5)] for name, f in made.items()}


json.dump({
    "keras": keras.__version__,
    "optimizers": optimizers(),
    "network": network(),
    "losses": losses(),
    "activations": activations(),
    "schedules": schedules(),
}, sys.stdout)
print()
