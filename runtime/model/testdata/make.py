"""Makes the foreign models in testdata/foreign and records what onnxruntime
answers for them, and for the models in testdata/own that `go test -update`
wrote. Tests only compare, so they need no Python. To run it:

    pip install numpy onnx onnxruntime safetensors
    go test ./runtime/model -run TestOwnModels -update
    python runtime/model/testdata/make.py
"""

import json
import pathlib
import shutil

import numpy as np
import onnx
import onnxruntime
import safetensors.numpy
from onnx import TensorProto, external_data_helper, helper, numpy_helper

here = pathlib.Path(__file__).parent
random = np.random.default_rng(7)
F, I64 = TensorProto.FLOAT, TensorProto.INT64


def weights(*shape):
    return random.normal(size=shape).astype(np.float32)


def model(nodes, constants, inputs=("N", 4), outputs=None, opset=17, extra=(), ml=False, kind=F):
    """A model from nodes (operator, inputs, output, attributes)."""
    made = []
    for operator, ins, out, *attributes in nodes:
        domain = "ai.onnx.ml" if operator in ("Scaler", "LinearRegressor") else None
        made.append(helper.make_node(operator, ins, [out], name=out + "_node", domain=domain, **(attributes or [{}])[0]))
    results = outputs or [helper.make_tensor_value_info(made[-1].output[0], F, ["N", "M"])]
    graph = helper.make_graph(
        made, "exported", [helper.make_tensor_value_info("x", kind, inputs)], results,
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()])
    sets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid("ai.onnx.ml", 1)] if ml else [])
    return helper.make_model(graph, opset_imports=sets, ir_version=9 if opset >= 20 else 8)


def foreign():
    f32 = np.float32
    w1, b1, w2, b2 = weights(4, 5), weights(5), weights(5, 3), weights(3)
    c = dict(w1=w1, b1=b1, w2=w2, b2=b2)
    t = dict(w1=w1.T.copy(), b1=b1, w2=w2.T.copy(), b2=b2)
    gemm = lambda x, w, b, y, **a: ("Gemm", [x, w, b], y, dict(transB=1, **a))
    yield "pytorch", model([gemm("x", "w1", "b1", "h"), ("Relu", ["h"], "r"), gemm("r", "w2", "b2", "z"), ("Softmax", ["z"], "y", dict(axis=1))], t)
    yield "pytorch-gelu", model([
        gemm("x", "w1", "b1", "h"), ("Div", ["h", "s"], "d"), ("Erf", ["d"], "e"), ("Add", ["e", "one"], "a"),
        ("Mul", ["h", "a"], "m"), ("Mul", ["m", "half"], "g"), gemm("g", "w2", "b2", "y")],
        t | dict(s=f32(2**0.5), one=f32(1), half=f32(0.5)))
    yield "keras-gelu", model([
        ("MatMul", ["x", "w1"], "p"), ("Add", ["p", "b1"], "h"), ("Mul", ["h", "s"], "d"), ("Erf", ["d"], "e"), ("Add", ["one", "e"], "a"),
        ("Mul", ["half", "h"], "k"), ("Mul", ["a", "k"], "g"), ("MatMul", ["g", "w2"], "y")],
        c | dict(s=f32(0.5**0.5), one=f32(1), half=f32(0.5)))
    yield "gelu-20", model([gemm("x", "w1", "b1", "h"), ("Gelu", ["h"], "g"), gemm("g", "w2", "b2", "y")], t, opset=20)
    yield "keras", model([
        ("Sub", ["x", "mean"], "s"), ("Div", ["s", "std"], "d"), ("MatMul", ["d", "w1"], "p"), ("Add", ["p", "b1"], "h"),
        ("Elu", ["h"], "r"), ("MatMul", ["r", "w2"], "q"), ("Add", ["b2", "q"], "z"), ("Sigmoid", ["z"], "v"), ("Identity", ["v"], "y")],
        c | dict(mean=weights(1, 4), std=np.abs(weights(1, 4)) + 1))
    yield "batch-normalization", model([
        gemm("x", "w1", "b1", "h"), ("BatchNormalization", ["h", "g", "b", "m", "v"], "n", dict(epsilon=1e-3)), ("Relu", ["n"], "r"),
        ("Dropout", ["r"], "o"), gemm("o", "w2", "b2", "z"), ("Tanh", ["z"], "y")],
        t | dict(g=weights(5), b=weights(5), m=weights(5), v=np.abs(weights(5))))
    labels = [helper.make_tensor_value_info("label", I64, ["N"]), helper.make_tensor_value_info("probabilities", F, ["N", 3])]
    yield "scikit-learn", model([
        ("Scaler", ["x"], "s", dict(offset=[1.0, 2.0, 3.0, 4.0], scale=[0.5, 1.0, 2.0, 3.0])), ("Cast", ["s"], "k", dict(to=F)),
        ("MatMul", ["k", "w1"], "p"), ("Add", ["p", "b1"], "h"), ("Relu", ["h"], "r"), ("MatMul", ["r", "w2"], "q"), ("Add", ["q", "b2"], "z"),
        ("Softmax", ["z"], "v"), ("Identity", ["v"], "probabilities"), ("ArgMax", ["probabilities"], "label", dict(axis=1, keepdims=0))],
        c | dict(b1=b1[None], b2=b2[None]), outputs=labels, ml=True)
    labels = [helper.make_tensor_value_info("label", I64, ["N"]), helper.make_tensor_value_info("probabilities", F, ["N", 2])]
    yield "scikit-learn-two-classes", model([
        ("Cast", ["x"], "k", dict(to=F)), ("MatMul", ["k", "w"], "q"), ("Add", ["q", "b"], "z"), ("Sigmoid", ["z"], "p"), ("Sub", ["one", "p"], "n"),
        ("Concat", ["n", "p"], "probabilities", dict(axis=1)), ("ArgMax", ["probabilities"], "label", dict(axis=1, keepdims=0))],
        dict(w=weights(4, 1), b=weights(1, 1), one=f32(1)), outputs=labels)
    yield "flatten", model([("Flatten", ["x"], "f"), gemm("f", "w1", "b1", "h"), ("LeakyRelu", ["h"], "y")], t, inputs=("N", 2, 2))
    yield "reshape", model([("Reshape", ["x", "shape"], "f"), gemm("f", "w1", "b1", "y", alpha=0.5, beta=2.0)], t | dict(shape=np.array([-1, 4])), inputs=("N", 2, 2))
    yield "double", model([("Cast", ["x"], "k", dict(to=TensorProto.DOUBLE)), ("MatMul", ["k", "w"], "q"), ("Cast", ["q"], "y", dict(to=F))], dict(w=w1.astype(np.float64)))
    yield "transposed", model([("Transpose", ["w1"], "w", dict(perm=[1, 0])), ("MatMul", ["x", "w"], "h"), ("Sub", ["one", "h"], "s"), ("Mul", ["s", "two"], "y")], t | dict(one=f32(1), two=f32(2)))
    yield "unknown-width", model([("Mul", ["x", "v"], "m"), ("Add", ["m", "v"], "a"), ("Tanh", ["a"], "y")], dict(v=weights(4)), inputs=("N", "C"))
    yield "scikit-learn-linear", model([("LinearRegressor", ["x"], "y", dict(coefficients=w1.flatten().tolist()[:8], intercepts=[1.0, 2.0], targets=2))], {}, ml=True)
    yield "external", model([gemm("x", "w1", "b1", "h"), ("Relu", ["h"], "r"), gemm("r", "w2", "b2", "y")], t)


def record(folder):
    """Writes the answers of onnxruntime beside a model."""
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    (x,) = session.get_inputs()
    shape = [6] + [d if isinstance(d, int) else 4 for d in x.shape[1:]]
    data = (3 * random.normal(size=shape)).astype(np.float32)
    outputs = dict(zip([o.name for o in session.get_outputs()], session.run(None, {x.name: data})))
    answer = outputs.get("probabilities", next(iter(outputs.values())))
    recorded = {"inputs": data.reshape(6, -1).tolist(), "outputs": np.asarray(answer).tolist()}
    (folder / "expected.json").write_text(json.dumps(recorded) + "\n")
    weights_file = folder / "model.safetensors"
    if weights_file.exists():
        print(folder.name, {k: v.shape for k, v in safetensors.numpy.load_file(weights_file).items()})


shutil.rmtree(here / "foreign", ignore_errors=True)
for name, made in foreign():
    folder = here / "foreign" / name
    folder.mkdir(parents=True)
    if name == "external":
        external_data_helper.convert_model_to_external_data(made, location="weights.bin", size_threshold=0)
    onnx.save(made, str(folder / "model.onnx"))
for group in ("foreign", "own"):
    for folder in sorted((here / group).iterdir()):
        record(folder)
