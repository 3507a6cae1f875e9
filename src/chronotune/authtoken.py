"""The token that Ray asks for, made for its owner alone: Ray's own would be readable by all users of the machine."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

_GIVEN = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Variables that name another token than the file's."""


def keep_private() -> None:
    """Make Ray's token file where there is none, and take the rights of others from the one that is there.

    Nothing is done where the environment names a token. When the file cannot be written, Ray says so itself.
    """
    if any(name in os.environ for name in _GIVEN):
        return
    path = Path.home() / ".ray" / "auth_token"
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.exists():
            handle, written = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")  # for its owner only
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32))
            try:
                os.link(written, path)  # whole, or not at all: another sweep may look for it at this moment
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                os.replace(written, path)
            finally:
                Path(written).unlink(missing_ok=True)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
