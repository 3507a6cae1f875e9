"""What runs on another node to look around there.

It is sent as source, because the node may lack this package, which is one of the things to find out: so nothing of
ours is imported at the top, and what comes back is a plain mapping.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import uuid
from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

CONTENT = "chronotune was here"
PREFIX = ".chronotune-"


def look(probe: str | None, packages: Sequence[str], model: str | None, gpus: bool) -> dict[str, Any]:
    """Everything that preflight asks of one node.

    Args:
        probe: A file that the driver has written; None: there is nothing to share.
        packages: Whose versions to tell.
        model: A `ModelPreset` as JSON, to be found from there; None: not asked.
        gpus: Whether to ask for the memory of its GPUs.

    Returns:
        `host`; `versions` by package, None where it is missing; `unread`, `unwritten` and `model`: why not, else
        empty; `written`: a file for the driver to read; `memory` and `gpus`: bytes of the machine and of each GPU.
    """
    unread = "" if probe is None else why_unreadable(Path(probe))
    written, unwritten = write(Path(probe).parent) if probe and not unread else ("", "")
    return {
        "host": socket.gethostname(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "unread": unread,
        "written": written,
        "unwritten": unwritten,
        "model": "" if model is None else _why_not_loadable(model),
        "memory": _memory(),
        "gpus": _gpus() if gpus else [],
    }


def why_unreadable(file: Path) -> str:
    """Empty when all is well."""
    try:
        return "" if file.read_text() == CONTENT else "it holds something else there"
    except OSError as error:
        return error.strerror or type(error).__name__


def write(folder: Path) -> tuple[str, str]:
    """The path of a new probe in `folder`, and why there is none."""
    file = folder / f"{PREFIX}{uuid.uuid4().hex}"
    try:
        with file.open("x") as opened:
            opened.write(CONTENT)
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as error:
        return "", error.strerror or type(error).__name__
    return str(file), ""


def remove(file: str) -> None:
    """Take a probe away."""
    Path(file).unlink(missing_ok=True)


def _version(package: str) -> str | None:
    try:
        if package == "chronotune":  # what is imported, wherever it lies, not what was once installed
            return str(import_module(package).__version__)
        return metadata.version(package)
    except (ImportError, metadata.PackageNotFoundError):
        return None


def _why_not_loadable(model: str) -> str:
    try:
        from chronotune.config.model import ModelPreset
        from chronotune.pretrained import refuse_unreachable

        refuse_unreachable(ModelPreset.model_validate(json.loads(model)))
    except Exception as error:  # whatever is wrong there, its first line is news
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return ""


def _memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not POSIX
        return 0


def _gpus() -> list[int]:
    if (asking := shutil.which("nvidia-smi")) is None:
        return []
    command = [asking, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
        return [int(line) * 2**20 for line in told.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
