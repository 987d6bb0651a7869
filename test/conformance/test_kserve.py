"""KServe's clients, of V1 and V2."""

import asyncio

import numpy
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

ROWS = [[5.0, 3.5, 1.5, 0.25], [1.0, 2.0, 6.0, 2.0]]


def rest(protocol):
    return InferenceRESTClient(RESTConfig(protocol=protocol, retries=0))


def request(binary, datatype="FP32"):
    given = InferInput("x", [2, 4], datatype)
    given.set_data_from_numpy(numpy.array(ROWS, numpy.float32 if datatype == "FP32" else numpy.float16), binary_data=binary)
    return InferRequest(model_name="iris", infer_inputs=[given], request_id="7")


def check(response):
    numpy.testing.assert_array_equal(response.outputs[0].as_numpy(), numpy.array(ROWS, numpy.float32)[:, :3])
    assert response.id == "7"


def test_v1(server):
    async def ask():
        client = rest("v1")
        base = f"http://{server.http}"
        assert await client.is_server_live(base)
        assert await client.is_model_ready(base, "iris")
        answer = await client.infer(base, {"instances": ROWS}, model_name="iris")
        assert answer["predictions"] == [row[:3] for row in ROWS]

    asyncio.run(ask())


@pytest.mark.parametrize(("binary", "datatype"), [(False, "FP32"), (True, "FP32"), (True, "FP16")])
def test_v2_rest(server, binary, datatype):
    async def ask():
        client = rest("v2")
        base = f"http://{server.http}"
        assert await client.is_server_live(base)
        assert await client.is_server_ready(base)
        assert await client.is_model_ready(base, "iris")
        check(await client.infer(base, request(binary, datatype), model_name="iris"))

    asyncio.run(ask())


@pytest.mark.parametrize(("binary", "datatype"), [(False, "FP32"), (True, "FP32"), (True, "FP16")])
def test_v2_grpc(server, binary, datatype):
    async def ask():
        async with InferenceGRPCClient(server.grpc) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("iris")
            check(await client.infer(request(binary, datatype)))

    asyncio.run(ask())
