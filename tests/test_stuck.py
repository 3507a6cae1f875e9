"""A worker that brings no result in time ends itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chronotune.logs import log_file


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full")
def test_a_full_disk_at_the_end_of_a_log_raises_nothing(tmp_path: Path) -> None:
    """What must be written says so itself."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "one.log").symlink_to("/dev/full")
    with log_file(tmp_path, "one") as file:
        file.write("a last line")
    assert file.closed
