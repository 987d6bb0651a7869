"""h2spec asks whether the port of gRPC keeps to the HTTP/2 of RFC 7540 and RFC 7541."""

import os
import pathlib
import subprocess


def test_port_of_grpc_speaks_http2(server):
    host, port = server.grpc.split(":")
    program = pathlib.Path(os.environ["BINARIES"]) / "h2spec"
    told = subprocess.run([program, "--strict", f"--host={host}", f"--port={port}"], capture_output=True, text=True)
    assert told.returncode == 0 and ", 0 failed" in told.stdout, told.stdout
