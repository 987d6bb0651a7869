"""NVIDIA's tritonclient, over HTTP with and without binary tensors, and gRPC."""

import ml_dtypes
import numpy
import pytest
import tritonclient.grpc
import tritonclient.http

ROWS = [[5.0, 3.5, 1.5, 0.25], [1.0, 2.0, 6.0, 2.0]]
LABELS = [b"setosa", b"virginica"]
HTTP_DATATYPES = ["FP32", "FP64", "BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"]
NUMPY = {
    "FP16": numpy.float16, "BF16": ml_dtypes.bfloat16, "FP32": numpy.float32, "FP64": numpy.float64, "BOOL": numpy.bool_,
    "INT8": numpy.int8, "INT16": numpy.int16, "INT32": numpy.int32, "INT64": numpy.int64,
    "UINT8": numpy.uint8, "UINT16": numpy.uint16, "UINT32": numpy.uint32, "UINT64": numpy.uint64,
}


@pytest.fixture(params=["http", "grpc"])
def triton(request, server):
    """The client's module and a client."""
    module = getattr(tritonclient, request.param)
    with module.InferenceServerClient(getattr(server, request.param)) as client:
        yield module, client


def values(datatype):
    return numpy.array(ROWS).astype(NUMPY[datatype])


def test_health(triton):
    _, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")


def test_metadata(triton, server):
    module, client = triton
    as_dict = {} if module is tritonclient.http else {"as_json": True}
    assert client.get_server_metadata(**as_dict)["name"] == "trainyard"
    model = client.get_model_metadata("iris", **as_dict)
    assert model["versions"] == [server.version]
    assert [int(n) for n in model["inputs"][0]["shape"]] == [-1, 4]
    assert [o["name"] for o in model["outputs"]] == ["outputs", "label"]


def test_repository_index(triton):
    module, client = triton
    if module is tritonclient.http:
        models = client.get_model_repository_index()
    else:
        models = client.get_model_repository_index(as_json=True)["models"]
    assert [(m["name"], m["state"]) for m in models] == [("iris", "READY"), ("line", "READY")]


def test_statistics_and_configuration(triton, server):
    module, client = triton
    as_dict = {} if module is tritonclient.http else {"as_json": True}
    given = module.InferInput("x", [2, 4], "FP32")
    given.set_data_from_numpy(values("FP32"))
    before = client.get_inference_statistics("iris", **as_dict)["model_stats"][0]
    client.infer("iris", [given])
    after = client.get_inference_statistics("iris", server.version, **as_dict)["model_stats"][0]
    assert after["version"] == server.version
    assert int(after["inference_count"]) == int(before.get("inference_count", 0)) + 2
    assert int(after["inference_stats"]["success"]["ns"]) > 0
    assert {m["name"] for m in client.get_inference_statistics(**as_dict)["model_stats"]} == {"iris", "line"}
    config = client.get_model_config("iris", **as_dict)
    config = config.get("config", config)
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert [int(n) for n in config["input"][0]["dims"]] == [4]
    assert [o["name"] for o in config["output"]] == ["outputs", "label"]


@pytest.mark.parametrize("datatype", [*HTTP_DATATYPES, "FP16", "BF16"])
@pytest.mark.parametrize("version", ["", "same"])
def test_default_form(triton, server, datatype, version):
    """Both clients send bytes unless they are told otherwise."""
    module, client = triton
    given = module.InferInput("x", [2, 4], datatype)
    given.set_data_from_numpy(values(datatype))
    result = client.infer("iris", [given], model_version=version and server.version, request_id="7")
    expected = values(datatype).astype(numpy.float32)[:, :3]
    numpy.testing.assert_array_equal(result.as_numpy("outputs"), expected)
    assert result.as_numpy("label") is None


@pytest.mark.parametrize("datatype", HTTP_DATATYPES)
@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_http_forms(server, datatype, binary_in, binary_out):
    with tritonclient.http.InferenceServerClient(server.http) as client:
        given = tritonclient.http.InferInput("x", [2, 4], datatype)
        given.set_data_from_numpy(values(datatype), binary_data=binary_in)
        asked = [tritonclient.http.InferRequestedOutput(name, binary_data=binary_out) for name in ("label", "outputs")]
        result = client.infer("iris", [given], outputs=asked)
        expected = values(datatype).astype(numpy.float32)[:, :3]
        numpy.testing.assert_array_equal(result.as_numpy("outputs"), expected)
        if datatype == "FP32":
            labels = [v if isinstance(v, bytes) else v.encode() for v in result.as_numpy("label")]
            assert labels == LABELS


def test_columns(triton):
    module, client = triton
    given = []
    for i, name in enumerate(["sepal_length", "sepal_width", "petal_length", "petal_width"]):
        column = module.InferInput(name, [2, 1], "FP32")
        column.set_data_from_numpy(values("FP32")[:, i : i + 1])
        given.insert(0, column)
    asked = [module.InferRequestedOutput("label")]
    assert list(client.infer("iris", given, outputs=asked).as_numpy("label")) == LABELS


def test_number(triton):
    module, client = triton
    given = module.InferInput("x", [3, 1], "FP32")
    given.set_data_from_numpy(numpy.array([[0], [1], [20]], numpy.float32))
    numpy.testing.assert_array_equal(client.infer("line", [given]).as_numpy("outputs"), [[1], [3], [41]])


@pytest.mark.parametrize(
    ("model", "shape", "http", "grpc", "message"),
    [
        ("rose", [2, 4], "404", "StatusCode.NOT_FOUND", 'there is no model "rose"; there are: iris, line'),
        ("iris", [4, 2], "400", "StatusCode.INVALID_ARGUMENT", "has shape [4, 2], expected [rows, 4]"),
    ],
)
def test_errors(triton, model, shape, http, grpc, message):
    module, client = triton
    given = module.InferInput("x", shape, "FP32")
    given.set_data_from_numpy(values("FP32").reshape(shape))
    with pytest.raises(tritonclient.utils.InferenceServerException, match=r".*") as caught:
        client.infer(model, [given])
    assert message in caught.value.message()
    assert caught.value.status() == (http if module is tritonclient.http else grpc)


def test_stream_of_requests_at_once(server):
    """Asynchronous calls, more than a connection's worth."""
    with tritonclient.http.InferenceServerClient(server.http, concurrency=8) as client:
        given = tritonclient.http.InferInput("x", [2, 4], "FP32")
        given.set_data_from_numpy(values("FP32"))
        running = [client.async_infer("iris", [given]) for _ in range(64)]
        for r in running:
            numpy.testing.assert_array_equal(r.get_result().as_numpy("outputs"), values("FP32")[:, :3])
