"""Ends processes of a sweep at a named moment. Python imports this in every process that has its folder on its path.

CHRONOTUNE_FAULT says where: a JSON object with `module` and `name` of a function, `call` (which one, from 1), `ends`
("driver", "self" for the process that calls, or "hang": it stays in native code), `times` (how often in the life of
the sweep) and `marks`, a folder.
A process dies by SIGKILL, before the function does anything.
"""

from __future__ import annotations

import ctypes
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

FAULT = json.loads(os.environ.get("CHRONOTUNE_FAULT", "null"))
DRIVER = "CHRONOTUNE_FAULT_DRIVER"


class _Patch(importlib.abc.MetaPathFinder):
    """Patches the module of the fault when it is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The usual one, whose loader patches afterwards."""
        if fullname != FAULT["module"]:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        assert spec is not None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _patch(module)

        loader.exec_module = exec_module
        return spec


def _patch(module: ModuleType) -> None:
    *owners, name = FAULT["name"].split(".")
    owner: Any = module
    for attribute in owners:
        owner = getattr(owner, attribute)
    original, calls = getattr(owner, name), iter(range(1, 1_000_000))

    def fatal(*arguments: Any, **named: Any) -> Any:
        if next(calls) == FAULT["call"] and _is_due():
            if FAULT["ends"] == "hang":
                ctypes.PyDLL(None).sleep(10**6)  # holds the interpreter's lock
            os.kill(int(os.environ[DRIVER]) if FAULT["ends"] == "driver" else os.getpid(), signal.SIGKILL)
        return original(*arguments, **named)

    setattr(owner, name, fatal)


def _is_due() -> bool:
    """Whether the fault has not yet happened as often as it shall: each time leaves a mark."""
    for number in range(FAULT["times"]):
        try:
            (Path(FAULT["marks"]) / f"fault-{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return True
    return False


if FAULT:
    os.environ.setdefault(DRIVER, str(os.getpid()))  # the first process of the sweep; the others inherit it
    sys.meta_path.insert(0, _Patch())
