"""A real server with two small models, for clients that others wrote.

BINARIES names the folder of the programs `registry` and `server`.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import time
import urllib.error
import urllib.request

import pytest

LIMIT = 30  # seconds that anything may take to start


@dataclasses.dataclass
class Server:
    http: str  # host:port
    grpc: str
    version: str  # of the model iris


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    binaries = pathlib.Path(os.environ["BINARIES"])
    config = folder / "serve.json"
    log = folder / "log"
    registry = subprocess.Popen([binaries / "registry", config], stdin=subprocess.PIPE)
    serving = None
    try:
        wait_for(config.exists, registry, "the registry")
        with log.open("wb") as out:
            serving = subprocess.Popen(
                [binaries / "server", f"--config={config}", "--stop-quiet=100ms", "--stop-least=100ms"]
                + [f"--{flag}=127.0.0.1:0" for flag in ("listen", "grpc-listen", "operations-listen")],
                stderr=out,
            )
        wait_for(lambda: addresses(log), serving, "the server")
        at = addresses(log)
        wait_for(lambda: is_ready(at["predictions"]), serving, "the models")
        digest = json.loads(config.read_text())["models"][0]["digest"]
        yield Server(at["predictions"], at["grpc"], digest.removeprefix("sha256:")[:12])
        serving.terminate()
        assert serving.wait(LIMIT) == 0, log.read_text()
    finally:
        for process in (serving, registry):
            if process and process.poll() is None:
                process.kill()
                process.wait()


def wait_for(done, process, what):
    end = time.monotonic() + LIMIT
    while not done():
        assert process.poll() is None, f"{what} ended with {process.returncode}"
        assert time.monotonic() < end, f"{what} took more than {LIMIT} s"
        time.sleep(0.02)


def addresses(log):
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        if entry["msg"] == "listening":
            return entry
    return None


def is_ready(host):
    try:
        with urllib.request.urlopen(f"http://{host}/v2/health/ready") as answer:
            return answer.status == 200
    except urllib.error.URLError:
        return False
