"""A worker that brings no result in time ends itself."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chronotune import again, trial
from chronotune.logs import log_file
from chronotune.records import BUDGET
from sweep_parts import small_recipe


def test_a_stuck_process_ends_with_its_stack_in_the_log(tmp_path: Path) -> None:
    """Although it is inside native code that holds the interpreter's lock."""
    code = (
        "import ctypes, pathlib, sys\n"
        "from chronotune.endings import ended_when_stuck\n"
        "from chronotune.logs import log_file\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with log_file(folder, 'quick') as file, ended_when_stuck(0.01, file): pass\n"
        "with log_file(folder, 'slow') as file, ended_when_stuck(0.01, file): ctypes.PyDLL(None).sleep(600)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=120, check=False)
    assert done.returncode == 1
    assert "Timeout" in (tmp_path / "logs/slow.log").read_text()
    assert not (tmp_path / "logs/quick.log").read_text()


@pytest.mark.parametrize("repeated", [False, True])
def test_every_slice_of_a_trial_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repeated: bool) -> None:
    """Of a search's trial and of what is trained once more at the end."""
    watched: list[float | None] = []

    @contextmanager
    def watching(minutes: float | None, file: object) -> Iterator[None]:
        watched.append(minutes)
        yield
        watched.clear()

    def results() -> Iterator[dict[str, Any]]:
        for rung in (3, 27):
            yield {BUDGET: rung, "watched": list(watched)}

    recipe = small_recipe(budget={"trials": 4, "windows": 27, "stuck_minutes": 7})
    assignment: Any = SimpleNamespace(recipe=recipe, directory=tmp_path)
    if repeated:
        monkeypatch.setattr(again, "ended_when_stuck", watching)
        last: Any = SimpleNamespace(assignment=assignment)
        run: Any = SimpleNamespace(results=results)
        seen = list(again.LastWorker._results(last, run, io.StringIO()))
    else:
        monkeypatch.setattr(trial, "ended_when_stuck", watching)
        tried = object.__new__(trial.FineTuneTrial)
        tried._worker, tried._config = SimpleNamespace(assignment=assignment), {"number": 0}  # type: ignore[assignment]
        slices = results()
        monkeypatch.setattr(tried, "_run", lambda: slices)
        seen = [tried.step(), tried.step()]
    assert [(one[BUDGET], one["watched"]) for one in seen] == [(3, [7]), (27, [7])]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full")
def test_a_full_disk_at_the_end_of_a_log_raises_nothing(tmp_path: Path) -> None:
    """What must be written says so itself."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "one.log").symlink_to("/dev/full")
    with log_file(tmp_path, "one") as file:
        file.write("a last line")
    assert file.closed
