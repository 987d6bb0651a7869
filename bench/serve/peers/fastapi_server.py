"""FastAPI with uvicorn over onnxruntime, as people write it by hand."""

import os

import numpy
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options)
name = session.get_inputs()[0].name
app = FastAPI()


class Input(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(BaseModel):
    inputs: list[Input]


@app.get("/v2/models/{model}/ready")
async def ready(model: str):
    return {"name": model, "ready": True}


@app.post("/v2/models/{model}/infer")
async def infer(model: str, request: Request):
    given = request.inputs[0]
    (outputs,) = session.run(None, {name: numpy.array(given.data, numpy.float32).reshape(given.shape)})
    answer = {"name": "outputs", "datatype": "FP32", "shape": outputs.shape, "data": outputs.ravel().tolist()}
    return {"model_name": model, "outputs": [answer]}


if __name__ == "__main__":
    host, _, port = os.environ["HTTP"].partition(":")
    uvicorn.run(app, host=host, port=int(port), log_level="error", access_log=False)
