"""Schemathesis: what the server describes is what it does."""

import pathlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize("parameters", ["", '"path.model" = "iris"'], ids=["any-model", "iris"])
def test_server_does_what_it_describes(server, tmp_path, parameters):
    config = tmp_path / "schemathesis.toml"
    config.write_text(f"[parameters]\n{parameters}\n")
    command = [
        pathlib.Path(sys.executable).parent / "schemathesis", f"--config-file={config}", "run", f"http://{server.http}/openapi.json",
        "--phases=examples,coverage,fuzzing", "--max-examples=50", "--seed=1", "--no-color",
        # That a shape and its data fit the model is beyond a schema: such
        # requests are valid by it, and refused.
        "--exclude-checks=positive_data_acceptance",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
