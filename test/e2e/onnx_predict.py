"""Answers rows with onnxruntime: onnx_predict.py MODEL.onnx < rows.json."""

import json
import sys

import numpy
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
rows = numpy.asarray(json.load(sys.stdin), dtype=numpy.float32)
(answers,) = session.run(None, {session.get_inputs()[0].name: rows})
json.dump(answers.tolist(), sys.stdout)
