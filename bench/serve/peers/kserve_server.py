"""KServe's Python model server over onnxruntime: V2 over REST and gRPC."""

import os

import kserve
import onnxruntime


class Network(kserve.Model):
    def __init__(self):
        super().__init__(os.environ["NAME"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options)
        self.input = self.session.get_inputs()[0].name
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        (outputs,) = self.session.run(None, {self.input: payload.inputs[0].as_numpy()})
        answer = kserve.InferOutput("outputs", list(outputs.shape), "FP32")
        answer.set_data_from_numpy(outputs, binary_data=payload.from_grpc)
        return kserve.InferResponse(payload.id or "1", self.name, [answer], from_grpc=payload.from_grpc)


if __name__ == "__main__":
    port = {way: int(os.environ[way].rpartition(":")[2]) for way in ("HTTP", "GRPC")}
    kserve.logging.configure_logging()
    kserve.ModelServer(
        http_port=port["HTTP"], grpc_port=port["GRPC"], workers=1, enable_latency_logging=False,
        access_log_format="",
    ).start([Network()])
