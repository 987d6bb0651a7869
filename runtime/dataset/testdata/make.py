#!/usr/bin/env python3
"""Makes the files beside it, with the libraries that people make theirs with:

    pip install numpy pandas pyarrow && python3 make.py

Every file has the rows (0, 0.5, -1), (1, 1.5, 0), (2, 2.5, 1) and, where it can
hold it, a label: rose, iris, rose.
"""
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

x = np.array([[0, 0.5, -1], [1, 1.5, 0], [2, 2.5, 1]])
names = np.array(["rose", "iris", "rose"])

np.save("f8.npy", x)
np.save("f4-fortran.npy", np.asfortranarray(x.astype("<f4")))
np.save("f2.npy", x.astype("<f2"))
np.savez("stored.npz", x=x.astype("<f4"), y=names)
np.savez_compressed("deflated.npz", x=np.asfortranarray(x), y=np.char.encode(names), n=np.arange(3), b=np.array([True, False, True]))
np.savez_compressed("images.npz", images=x.repeat(4).reshape(3, 3, 2, 2).astype("u1"), y=np.array([2**60, 2**60 + 1, 2**60]))
np.save("object.npy", np.array([{}], dtype=object), allow_pickle=True)
np.save("big-endian.npy", x.astype(">f4"))
np.save("fields.npy", np.array([(1, 2.0)], dtype=[("a", "<i4"), ("b", "<f4")]))

table = pa.table({
    "a": pa.array([0, 1, 2], pa.int32()),
    "b": pa.array([0.5, 1.5, 2.5], pa.float64()),
    "c": pa.array([-1, 0, 1], pa.float32()),
    "small": pa.array([1, 2, None], pa.uint8()),
    "half": pa.array(np.array([1, 2, 3], "f2")),
    "sure": pa.array([True, False, True]),
    "when": pa.array([1, 2, 3], pa.timestamp("us")),
    "list": pa.array([[1], [2], []]),
    "color": pa.array(["red", None, "blue"]),
    "species": names,
})
pq.write_table(table, "snappy.parquet")
pq.write_table(table, "zstd.parquet", compression="zstd", row_group_size=2, use_dictionary=False, data_page_version="2.0")
pq.write_table(table, "gzip.parquet", compression="gzip", data_page_size=1)
