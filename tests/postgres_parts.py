"""A PostgreSQL server of a test's own: a cluster in a folder of its own, listening on a free port of this machine."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Self

_FOLDERS = ("/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt")


def server_or_reason() -> Server | str:
    """A server that is not started yet, or why there can be none here."""
    programs = [*Path(_FOLDERS[0]).glob("*/bin/initdb"), *(Path(found) for found in [shutil.which("initdb")] if found)]
    if not programs:
        return "no PostgreSQL server is installed (apt install postgresql)"
    try:
        import psycopg  # noqa: F401  # only whether it is there
    except ImportError:
        return "psycopg is not installed (pip install 'chronotune[postgresql]')"
    if os.geteuid() == 0 and _other_user() is None:
        return "PostgreSQL refuses to run as root, and there is no user postgres or nobody"
    return Server(sorted(programs)[-1].resolve().parent)


def _other_user() -> pwd.struct_passwd | None:
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known.get("nobody")


class Server:
    """A server on a port of its own; a context manager from its start to its end.

    With a `password`, set before it begins, it asks for that one, as clients find it in PGPASSWORD.
    """

    def __init__(self, programs: Path) -> None:
        self.password: str | None = None
        self._programs, self._port = programs, _free_port()
        # not in pytest's folder, which nobody else may enter
        self.place = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._log = self.place / "log"
        self._process: subprocess.Popen[Any] | None = None
        self._user = _other_user() if os.geteuid() == 0 else None  # it refuses to run as root
        if self._user:
            os.chown(self.place, self._user.pw_uid, self._user.pw_gid)

    def __enter__(self) -> Self:
        """Make the cluster, without waiting for the disk, and start."""
        options = ["--username=tester", "--no-sync", "--no-instructions", *self._authentication()]
        subprocess.run(
            [self._programs / "initdb", "-D", self.place / "data", *options],
            check=True,
            capture_output=True,
            **self._as_user(),
        )
        (self.place / "password").unlink(missing_ok=True)
        self.start()
        return self

    def _authentication(self) -> list[str]:
        if self.password is None:
            return ["--auth=trust"]
        (file := self.place / "password").write_text(self.password)
        if self._user:
            os.chown(file, self._user.pw_uid, self._user.pw_gid)
        return ["--auth=scram-sha-256", f"--pwfile={file}"]

    def __exit__(self, *_: object) -> None:
        """End at once, and leave nothing."""
        self.kill()
        shutil.rmtree(self.place, ignore_errors=True)

    def start(self) -> None:
        """Start, and wait until it answers."""
        settings = [f"port={self._port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.place}"]
        command = [str(self._programs / "postgres"), "-D", str(self.place / "data")]
        command += [part for setting in [*settings, "fsync=off"] for part in ("-c", setting)]
        with self._log.open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, **self._as_user())
        self._process = process
        until = time.monotonic() + 60
        while not self._answers():
            stands = process.poll() is None and time.monotonic() < until
            assert stands, f"PostgreSQL does not start: {self._log.read_text()}"
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGQUIT, PostgreSQL's immediate shutdown: connections break, the next start recovers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=60)
            self._process = None

    def new_database(self) -> str:
        """The address of an empty database."""
        name = f"db{uuid.uuid4().hex[:8]}"
        self._run(f"create database {name}")
        return self.url(name)

    def url(self, name: str) -> str:
        """The address of a database."""
        return f"postgresql+psycopg://tester@127.0.0.1:{self._port}/{name}"

    def _run(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self._conninfo(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self._conninfo()).close()
        except psycopg.OperationalError:
            return False
        return True

    def _conninfo(self) -> str:
        return f"host=127.0.0.1 port={self._port} user=tester dbname=postgres connect_timeout=2"

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {"cwd": self.place}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": [], "cwd": "/"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
