"""A client that knows no .proto: it learns the service from the server."""

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "inference.GRPCInferenceService"


def test_learnt_service_answers(server):
    with grpc.insecure_channel(server.grpc) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
        method = DescriptorPool(database).FindServiceByName(SERVICE).FindMethodByName("ModelInfer")
        asked = json_format.ParseDict(
            {
                "model_name": "iris",
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "contents": {"fp32_contents": [5, 3.5, 1.5, 0]}}],
            },
            GetMessageClass(method.input_type)(),
        )
        answer = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )(asked)
        assert list(answer.outputs[0].contents.fp32_contents) == [5, 3.5, 1.5]
