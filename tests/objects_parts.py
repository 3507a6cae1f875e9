"""An S3-compatible server of a test's own: a process on a free port of this machine, with one empty bucket."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

BUCKET = "sweeps"


class Objects:
    """A context manager from the server's start to its end; what it says goes to `objects.log` in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._secret = secrets.token_hex(20)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
            """HOST:PORT."""

    def __enter__(self) -> Self:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", self.host.rpartition(":")[2]]
        self._log = (self._folder / "objects.log").open("w")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        until = time.monotonic() + 240
        while not self._answers():
            stands = self._process.poll() is None and time.monotonic() < until
            assert stands, f"the object store does not start: {(self._folder / 'objects.log').read_text()}"
            time.sleep(0.2)
        self.files().create_dir(BUCKET)
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()  # it keeps nothing
        self._process.wait(30)
        self._log.close()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://{self.host}/moto-api/", timeout=5).close()
        except OSError:
            return False
        return True

    @property
    def variables(self) -> dict[str, str]:
        """Environment that leads here: where the server is, and a key, which it does not check."""
        keys = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": self._secret}
        return {**keys, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://{self.host}"}

    def files(self) -> Any:
        """All of it, as a file system of pyarrow's."""
        from pyarrow import fs

        access = {"access_key": "tester", "secret_key": self._secret, "region": "us-east-1"}
        return fs.S3FileSystem(endpoint_override=self.host, scheme="http", allow_bucket_creation=True, **access)

    def kept(self, name: str) -> list[str]:
        """Paths of all objects below a name in the bucket, without that name."""
        from pyarrow.fs import FileSelector, FileType

        place = f"{BUCKET}/{name}"
        found = self.files().get_file_info(FileSelector(place, allow_not_found=True, recursive=True))
        return sorted(each.path.removeprefix(f"{place}/") for each in found if each.type == FileType.File)
