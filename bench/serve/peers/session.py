"""onnxruntime's own time for a batch, without any protocol.

session.py MODEL ROWS INPUTS SECONDS
"""

import json
import sys
import time

import numpy
import onnxruntime

path, rows, inputs, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(path, options)
given = {session.get_inputs()[0].name: numpy.resize(numpy.array([0, 0.8125, 0.5, 0.1], numpy.float32), (rows, inputs))}
for _ in range(100):
    session.run(None, given)
took = []
end = time.perf_counter() + seconds
while time.perf_counter() < end:
    began = time.perf_counter()
    session.run(None, given)
    took.append(time.perf_counter() - began)
print(json.dumps({"rate": rows * len(took) / sum(took), "p99": float(numpy.percentile(took, 99))}))
