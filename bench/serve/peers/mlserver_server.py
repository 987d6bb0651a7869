"""MLServer over onnxruntime: V2 over REST and gRPC, without its pool of workers
and without logs, which is the fastest that it runs on one core."""

import asyncio
import os

import onnxruntime
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Network(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options)
        self.input = self.session.get_inputs()[0].name
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = NumpyCodec.decode_input(payload.inputs[0])
        (outputs,) = self.session.run(None, {self.input: given})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("outputs", outputs)])


async def main():
    port = {way: int(os.environ[way].rpartition(":")[2]) for way in ("HTTP", "GRPC")}
    server = MLServer(Settings(
        host="127.0.0.1", http_port=port["HTTP"], grpc_port=port["GRPC"], metrics_endpoint=None, metrics_dir=os.environ["DIR"],
        parallel_workers=0, debug=False, gzip_enabled=False, logging_settings={"version": 1, "disable_existing_loggers": True},
    ))
    await server.start([ModelSettings(name=os.environ["NAME"], implementation=Network)])


if __name__ == "__main__":
    asyncio.run(main())
