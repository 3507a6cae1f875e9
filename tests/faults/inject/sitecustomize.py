"""Does harm to a sweep at a named moment. Python imports this in every process that has its folder on its path.

CHRONOTUNE_FAULT says where: a JSON object with `module` and `name` of a function, `call` (which one, from 1), `about`
(only calls count whose arguments have this in their text), `ends` (what happens), `times` (how often in the life of
the sweep) and `marks`, a folder. What happens, before the function does anything:

    driver, self      the driver, or the process that calls, dies by SIGKILL
    hang, sleep       the call does not return: inside native code that holds the interpreter's lock, or in Python
    raise             a RuntimeError
    nan               the function does its work, and its result is multiplied by NaN
"""

from __future__ import annotations

import ctypes
import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
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
        counts = not FAULT["about"] or FAULT["about"] in str(arguments)
        if counts and next(calls) == FAULT["call"] and _is_due():
            return _harm(lambda: original(*arguments, **named))
        return original(*arguments, **named)

    setattr(owner, name, fatal)


def _harm(original: Callable[[], Any]) -> Any:
    match FAULT["ends"]:
        case "driver":
            os.kill(int(os.environ[DRIVER]), signal.SIGKILL)
            time.sleep(10**6)  # in a worker, which ends with its driver: it must not finish what was cut off
        case "self":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            ctypes.PyDLL(None).sleep(10**6)  # holds the interpreter's lock
        case "sleep":
            time.sleep(10**6)
        case "raise":
            raise RuntimeError("planted")
    return original() * float("nan")


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
