"""Trains nothing: lets PyTorch, Keras and scikit-learn export small models with
random or quickly fitted weights into testdata/exported, and records what
onnxruntime answers for them (see record). Tests only compare.

Where onnxruntime can't load what an exporter wrote, the exporting program's own
answers are recorded, or, if no reader could know what is meant, nothing is.
"""

import json
import os
import pathlib
import shutil
import warnings

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
warnings.filterwarnings("ignore")

import numpy as np
import onnx
import onnxruntime

folder = pathlib.Path(__file__).parent / "exported"
random = np.random.default_rng(7)


def place(name):
    made = folder / name
    made.mkdir(parents=True)
    return made / "model.onnx"


def record(path, own=None, classes=None):
    """Writes the answers of onnxruntime beside a model, or own(data)."""
    data, answer = None, None
    if own is None:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (x,) = session.get_inputs()
        data = rows(*[d for d in x.shape[1:]])
        answer = dict(zip([o.name for o in session.get_outputs()], session.run(None, {x.name: data})))
        answer = answer.get("probabilities", answer.get("output_probability", list(answer.values())[-1]))
        if isinstance(answer, list):  # maps, from ZipMap
            answer = [list(row.values()) for row in answer]
    else:
        data = rows(4)
        answer = own(data)
    recorded = {"inputs": data.reshape(6, -1).tolist(), "outputs": np.asarray(answer).reshape(6, -1).tolist()}
    if classes is not None:
        recorded["classes"] = [str(c) for c in classes]
    (path.parent / "expected.json").write_text(json.dumps(recorded) + "\n")


def rows(*shape):
    return (3 * random.normal(size=(6, *shape))).astype(np.float32)


def pytorch():
    import torch
    from torch import nn

    torch.manual_seed(7)
    tanh_gelu = lambda: nn.GELU(approximate="tanh")

    class View(nn.Module):
        def forward(self, x):
            return x.view(x.size(0), -1)

    models = {
        "relu-softmax": [nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.Softmax(dim=1)],
        "activations": [nn.Linear(4, 5), nn.LeakyReLU(0.1), nn.Linear(5, 5), nn.ELU(1.5), nn.Linear(5, 5), nn.Sigmoid(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3, bias=False)],
        "gelu": [nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 3)],
        "gelu-tanh": [nn.Linear(4, 5), tanh_gelu(), nn.Linear(5, 3)],
        "batch-normalization": [nn.BatchNorm1d(4), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 5), nn.ReLU(), nn.BatchNorm1d(5), nn.Linear(5, 1), nn.Sigmoid()],
        "view": [View(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)],
        "flatten": [nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)],
        "wide": [nn.Linear(4, 300), nn.ReLU(), nn.Linear(300, 2)],  # enough to lie in a file of its own
        "double": [nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)],
        # What cannot be read:
        "unsupported-relu6": [nn.Linear(4, 5), nn.ReLU6(), nn.Linear(5, 2)],
        "unsupported-silu": [nn.Linear(4, 5), nn.SiLU(), nn.Linear(5, 2)],
        "unsupported-log-softmax": [nn.Linear(4, 5), nn.LogSoftmax(dim=1)],
        "unsupported-convolution": [nn.Conv1d(1, 2, 2), nn.Flatten(), nn.Linear(6, 2)],
    }
    for name, layers in models.items():
        model = nn.Sequential(*layers).eval()
        for layer in layers:
            if isinstance(layer, nn.BatchNorm1d):
                for values in (layer.weight.data, layer.bias.data, layer.running_mean):
                    values.normal_()
                layer.running_var.uniform_(0.5, 2)
        x = torch.randn(6, *{"flatten": (2, 2), "view": (2, 2), "unsupported-convolution": (1, 4)}.get(name, (4,)))
        if name == "double":
            model, x = model.double(), x.double()
        for exporter, options in {
            "torchscript": dict(dynamo=False, dynamic_axes={"x": {0: "rows"}}, input_names=["x"]),
            "torchscript-17": dict(dynamo=False, dynamic_axes={"x": {0: "rows"}}, input_names=["x"], opset_version=17),
            "torchscript-fixed": dict(dynamo=False, input_names=["x"]),
            "dynamo": dict(dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("rows")},)),
            "dynamo-external": dict(dynamo=True, verbose=False, external_data=True, optimize=False, dynamic_shapes=({0: torch.export.Dim("rows")},)),
        }.items():
            if exporter == "torchscript-17" and not name.startswith("gelu") or exporter in ("torchscript-fixed", "dynamo-external") and name not in ("flatten", "view", "wide", "batch-normalization"):
                continue
            path = place(f"{exporter}-{name}")
            torch.onnx.export(model, (x,), str(path), **options)
            without_traces(path)
            if not name.startswith("unsupported"):
                record(path, own=(lambda d: model(torch.from_numpy(d.astype(np.float64))).detach().numpy().astype(np.float32)) if name == "double" else None)


def without_traces(path):
    """Takes out the stack traces of the exporter, which hold this machine's paths."""
    made = onnx.load(str(path), load_external_data=False)
    for part in (made, made.graph, *made.graph.node, *made.graph.value_info, *made.graph.initializer, *made.graph.input, *made.graph.output):
        del part.metadata_props[:]
    path.write_bytes(made.SerializeToString())
    beside = path.with_suffix(".onnx.data")
    if beside.exists() and beside.stat().st_size == 0:
        beside.unlink()


def keras():
    import keras
    import tensorflow as tf
    import tf2onnx
    from keras import layers as L

    keras.utils.set_random_seed(7)
    seen = random.normal(3, 2, size=(100, 4)).astype(np.float32)
    normalization = L.Normalization()
    normalization.adapt(seen)
    tanh_gelu = lambda x: keras.activations.gelu(x, approximate=True)
    models = {
        "relu-softmax": [L.Dense(5, activation="relu"), L.Dense(3, activation="softmax")],
        "normalization": [normalization, L.Dense(5, activation="elu"), L.Dense(5, activation="tanh"), L.Dense(1, activation="sigmoid")],
        "leaky-relu": [L.Dense(5), L.LeakyReLU(negative_slope=0.1), L.Dense(5, activation="leaky_relu"), L.Dense(2, use_bias=False)],
        "gelu": [L.Dense(5, activation="gelu"), L.Dense(3)],
        "gelu-tanh": [L.Dense(5, activation=tanh_gelu), L.Dense(3)],
        "batch-normalization": [L.BatchNormalization(), L.Dense(5), L.BatchNormalization(), L.ReLU(), L.Dropout(0.5), L.Dense(5, activation="relu"), L.BatchNormalization(), L.Dense(2)],
        "flatten": [L.Flatten(), L.Rescaling(1 / 255.0), L.Dense(5, activation="relu"), L.Dense(3, activation="softmax")],
        "unsupported-swish": [L.Dense(5, activation="swish"), L.Dense(3)],
    }
    for name, layers in models.items():
        shape = (2, 2) if name == "flatten" else (4,)
        model = keras.Sequential([L.Input(shape), *layers])
        for layer in model.layers:
            if layer.get_weights() and not isinstance(layer, L.Normalization):
                layer.set_weights([np.abs(w) + 0.5 if v.name == "moving_variance" else w for v, w in zip(layer.weights, [random.normal(size=w.shape) for w in layer.get_weights()])])
        own = model.predict if name == "gelu" else None  # tf2onnx writes Erfc, which no ONNX has
        model(rows(*shape))
        path = place(f"keras-{name}")
        model.export(str(path), format="onnx", verbose=False)
        if name == "normalization":
            shutil.move(path.parent, folder / "keras-several-inputs")  # see below
        elif not name.startswith("unsupported"):
            record(path, own)
        signature = [tf.TensorSpec((None, *shape), tf.float32, name="x")]
        path = place(f"tf2onnx-{name}")
        if name == "normalization":
            # The layer's mean is no variable, and tf2onnx makes an input of it
            # when it converts a function. From a SavedModel it does not.
            model.export("/tmp/saved-model", format="tf_saved_model", verbose=False)
            os.system(f"{os.sys.executable} -m tf2onnx.convert --saved-model /tmp/saved-model --output {path} > /dev/null 2>&1")
            shutil.rmtree("/tmp/saved-model")
        else:
            function = tf.function(lambda x: model(x, training=False), input_signature=signature)
            tf2onnx.convert.from_function(function, input_signature=signature, output_path=str(path))
        if not name.startswith("unsupported"):
            record(path, own)


def scikit_learn():
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    x, y = load_iris(return_X_y=True)
    x, named = x.astype(np.float32), np.array(["setosa", "versicolor", "virginica"])[y]
    target = x @ np.array([1, 2, 3, 4], np.float32)
    targets = np.stack([target, 1 - target], 1)
    mlp = lambda kind=MLPClassifier, activation="relu": kind(hidden_layer_sizes=(5, 4), activation=activation, max_iter=300, random_state=7)
    scaled = lambda model, scaler=StandardScaler: make_pipeline(scaler(), model)
    plain = {"zipmap": False}
    models = {
        "mlp-zipmap": (scaled(mlp()), y, {}),
        "mlp-named-zipmap": (scaled(mlp(activation="tanh")), named, {}),
        "mlp": (scaled(mlp()), y, plain),
        "mlp-named": (scaled(mlp(activation="identity")), named, plain),
        "mlp-two-classes": (scaled(mlp(activation="logistic"), MinMaxScaler), y == 2, plain),
        "mlp-two-classes-zipmap": (scaled(mlp(), MaxAbsScaler), named == "setosa", {}),
        "mlp-regressor": (scaled(mlp(MLPRegressor)), target, None),
        "unsupported-mlp-regressor-two-targets": (scaled(mlp(MLPRegressor)), targets, None),  # skl2onnx reshapes to one column
        "logistic-regression": (LogisticRegression(), y, plain),
        "logistic-regression-zipmap": (scaled(LogisticRegression()), named, {}),
        "logistic-regression-two-classes": (scaled(LogisticRegression()), y == 2, plain),
        "linear-regression": (LinearRegression(), target, None),
        "ridge-two-targets": (scaled(Ridge()), targets, None),
        "unsupported-one-vs-rest": (OneVsRestClassifier(LogisticRegression()), y, plain),
        "unsupported-tree": (DecisionTreeClassifier(max_depth=2), y, plain),
    }
    for name, (model, wanted, options) in models.items():
        model.fit(x, wanted)
        path = place(f"skl2onnx-{name}")
        onnx.save(to_onnx(model, x[:1], options=None if options is None else {id(model): options}), str(path))
        if not name.startswith("unsupported"):
            record(path, classes=[int(c) if isinstance(c, np.bool_) else c for c in getattr(model, "classes_", [])] or None)


shutil.rmtree(folder, ignore_errors=True)
pytorch()
keras()
scikit_learn()
