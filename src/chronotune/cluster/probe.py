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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

CONTENT = "chronotune was here"
PREFIX = ".chronotune-"
_OBJECT = "probe"
"""Its name in an object store, below the probe's."""


def look(
    probes: Mapping[str, tuple[str, str]], packages: Sequence[str], model: str | None, gpus: bool
) -> dict[str, Any]:
    """Everything that preflight asks of one node.

    Args:
        probes: What the driver has written, by what it is for: a folder or an `s3://` address, and a name in it.
        packages: Whose versions to tell.
        model: A `ModelPreset` as JSON, to be found from there; None: not asked.
        gpus: Whether to ask for the memory of its GPUs.

    Returns:
        `host`; `versions` by package, None where it is missing; `places` by what they are for, with `place`, `unread`
        and `unwritten`: why not, else empty; `written`: a name for the driver to read; `model`: why it cannot be
        loaded; `memory` and `gpus`: bytes of the machine and of each GPU.
    """
    return {
        "host": socket.gethostname(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "places": {what: _exchange(*probe) for what, probe in probes.items()},
        "model": "" if model is None else _why_not_loadable(model),
        "memory": _memory(),
        "gpus": _gpus() if gpus else [],
    }


def _exchange(place: str, name: str) -> dict[str, str]:
    unread = why_unreadable(place, name)
    written, unwritten = ("", "") if unread else write(place)
    return {"place": place, "unread": unread, "written": written, "unwritten": unwritten}


def why_unreadable(place: str, name: str) -> str:
    """Empty when all is well."""
    try:
        return "" if _read(place, name) == CONTENT else "it holds something else there"
    except Exception as error:  # of the system, or of the store's client
        return _reason(error)


def write(place: str) -> tuple[str, str]:
    """The name of a new probe in a place, and why there is none."""
    name = f"{PREFIX}{uuid.uuid4().hex}"
    try:
        _write(place, name)
    except Exception as error:
        return "", _reason(error)
    return name, ""


def remove(place: str, name: str) -> None:
    """Take a probe away; what cannot be removed stays."""
    with suppress(Exception):
        if "://" in place:
            _store(place).remove(name)
        else:
            Path(place, name).unlink(missing_ok=True)


def _read(place: str, name: str) -> str:
    if "://" not in place:
        return Path(place, name).read_text()
    with _store(place).local(name) as folder:
        return str((folder / _OBJECT).read_text())


def _write(place: str, name: str) -> None:
    if "://" in place:
        _store(place).save(name, _fill)
        return
    with Path(place, name).open("x") as opened:
        opened.write(CONTENT)
        opened.flush()
        os.fsync(opened.fileno())


def _fill(folder: Path) -> None:
    folder.mkdir()
    (folder / _OBJECT).write_text(CONTENT)


def _store(place: str) -> Any:
    from chronotune.stores import store_at

    return store_at(place)


def _reason(error: Exception) -> str:
    told = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return str(told).splitlines()[0]


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


def _memory(control_groups: Path = Path("/sys/fs/cgroup")) -> int:
    """The machine's, capped by its container's limit (cgroup v2 or v1); 0 where it is unknown."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not POSIX
        return 0
    return min([machine, *filter(None, map(_limit, (control_groups / name for name in _LIMITS)))])


_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")


def _limit(file: Path) -> int:
    """Bytes; 0 without a limit."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
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
