"""onnxruntime's own time for a batch, without any protocol.

session.py MODEL DATA INPUTS SECONDS

DATA is a file of float32.
"""

import json
import sys
import time

import numpy
import onnxruntime

path, data, inputs, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(path, options)
rows = numpy.fromfile(data, numpy.float32).reshape(-1, inputs)
given = {session.get_inputs()[0].name: rows}
for _ in range(100):
    session.run(None, given)
took = []
end = time.perf_counter() + seconds
while time.perf_counter() < end:
    began = time.perf_counter()
    session.run(None, given)
    took.append(time.perf_counter() - began)
print(json.dumps({"rate": len(rows) * len(took) / sum(took), "p99": float(numpy.percentile(took, 99))}))
