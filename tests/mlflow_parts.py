"""MLflow's own server, for tests that need one: over a database in a folder, from its start to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE = 240
"""Seconds in which a server must answer; where other programs use all processors it takes a minute."""


class NoServerError(Exception):
    """It cannot be had here; says why."""


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server that answers at this port of this machine; its processes are ended with the block.

    Its runs stay in `folder`/mlflow.db, what it serves in `folder`/artifacts; what it prints is added to mlflow.log.

    Raises:
        NoServerError: It ends by itself, or does not answer within `PATIENCE`.
    """
    store, artifacts = f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", store, "--serve-artifacts", "--artifacts-destination", str(artifacts)]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # eight processes that nobody asks
    with (folder / "mlflow.log").open("a") as printed:
        server = subprocess.Popen(
            command, stdout=printed, stderr=printed, cwd=folder, env=environment, start_new_session=True
        )
    try:
        wait_for_answer(f"http://127.0.0.1:{port}/health", server)
        yield server
    finally:
        kill_group(server)
        server.wait()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process that began a session of its own, and to its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def wait_for_answer(address: str, server: subprocess.Popen[bytes]) -> None:
    """Return when a server answers.

    Raises:
        NoServerError: It has ended, or does not within `PATIENCE`.
    """
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with suppress(OSError), urllib.request.urlopen(address, timeout=10):
            return
        if server.poll() is not None:
            raise NoServerError(f"the MLflow server must answer at {address}, but ends with code {server.returncode}")
        time.sleep(0.2)
    raise NoServerError(f"the MLflow server must answer at {address} within {PATIENCE} seconds")
