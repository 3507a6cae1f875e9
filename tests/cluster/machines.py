"""A Ray cluster of real processes on one machine: a head and nodes that come and go, token auth on."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

RAY = Path(sys.executable).parent / "ray"
STORE = 100_000_000
"""Bytes of each node's object store."""


_given = set[int]()

_PORTS = range(20_000, 32_000)
"""Where ports are looked for: above those of Ray's workers, below those that the system gives to whoever asks."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses and that were not given before: a node takes its own only seconds later."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(_PORTS)
        if port not in _given and _is_free(port):
            _given.add(port)
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass
class Machines:
    """A context manager: whatever was started is ended, by its process id."""

    place: Path
    """Logs, and the file with the token."""
    variables: dict[str, str] = field(default_factory=dict)
    """More environment of all nodes."""
    host: str = "127.0.0.1"
    """The address of the head, and of nodes that name no other."""
    token: str = field(default_factory=lambda: secrets.token_hex(24))
    nodes: dict[str, psutil.Popen] = field(default_factory=dict)
    _folders: list[Path] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Choose ports and write the token's file, for its owner only."""
        self.port, self.dashboard, self._client = free_ports(3)
        self.token_file = self.place / "token"
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(self.token)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all nodes, the head last."""
        for name in reversed(list(self.nodes)):
            self.kill(name)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def address(self) -> str:
        """The dashboard's."""
        return f"http://127.0.0.1:{self.dashboard}"

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that may talk to the cluster."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CHRONOTUNE_JOB"))}
        path = os.pathsep.join([str(RAY.parent), kept.get("PATH", "")])  # the job says `python`, and pip is asked for
        patience = {"CHRONOTUNE_ANSWER_SECONDS": "120"}  # this machine is several
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_file)}
        return {**kept, **patience, **token, **self.variables, "PATH": path}

    def head(self, cpus: int = 0) -> None:
        """Start the head, by default without a CPU for trials."""
        dashboard = ["--include-dashboard", "true", "--dashboard-host", "127.0.0.1"]
        ports = [
            "--port",
            str(self.port),
            "--dashboard-port",
            str(self.dashboard),
            "--ray-client-server-port",
            str(self._client),
        ]
        self._start("head", ["--head", *dashboard, *ports], cpus)
        self._wait_for(lambda: self.answer(self.token) == 200, "the head's dashboard")

    def add(self, name: str, cpus: int = 1, prefix: tuple[str, ...] = (), host: str | None = None) -> None:
        """Start a worker node; `prefix` runs it, e.g. in namespaces, where it has an address of its own."""
        self._start(name, ["--address", f"{self.host}:{self.port}"], cpus, prefix, host)

    def _start(
        self, name: str, options: list[str], cpus: int, prefix: tuple[str, ...] = (), host: str | None = None
    ) -> None:
        folder = Path(tempfile.mkdtemp(prefix="ctm-", dir="/tmp"))
        self._folders.append(folder)
        agent, metrics, grpc, environment = free_ports(4)
        own = [
            *("--dashboard-agent-listen-port", str(agent), "--dashboard-agent-grpc-port", str(grpc)),
            *("--metrics-export-port", str(metrics), "--runtime-env-agent-port", str(environment)),
            *("--num-cpus", str(cpus), "--num-gpus", "0", "--object-store-memory", str(STORE)),
            *("--node-ip-address", host or self.host, "--temp-dir", str(folder)),
            *("--resources", f'{{"{name}": 1}}', "--disable-usage-stats", "--block"),
        ]
        with (self.place / f"{name}.log").open("w") as log:
            command = [*prefix, str(RAY), "start", *options, *own]
            self.nodes[name] = psutil.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.place)

    def kill(self, name: str) -> None:
        """SIGKILL to every process of a node at once, as when a machine is lost."""
        root = self.nodes.pop(name)
        with suppress(psutil.NoSuchProcess):
            lost = [root, *root.children(recursive=True)]
            for process in lost:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        root.wait(10)

    def notice(self, name: str) -> None:
        """SIGTERM to a node, as a spot market sends it before it takes the machine away."""
        self.nodes[name].send_signal(signal.SIGTERM)

    def answer(self, token: str | None, path: str = "/api/jobs/") -> int:
        """The HTTP status with which the dashboard answers; 0 when it does not."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.address + path, headers=headers), timeout=10
            ) as got:
                return int(got.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def run(self, *command: str, cwd: Path) -> subprocess.Popen[str]:
        """A command that may talk to the cluster; what it prints goes to `printed.txt` in its directory."""
        with (cwd / "printed.txt").open("a") as printed:
            return subprocess.Popen(command, cwd=cwd, env=self.environment, stdout=printed, stderr=printed, text=True)

    def _wait_for(self, ready: object, what: str, seconds: float = 240) -> None:
        assert callable(ready)
        until = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > until or self.nodes["head"].poll() is not None:
                raise RuntimeError(f"{what} must answer within {seconds} seconds; see {self.place}/head.log")
            time.sleep(0.5)
