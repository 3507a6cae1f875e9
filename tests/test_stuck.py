"""A worker that brings no result in time ends itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_stuck_process_ends_with_its_stack_in_the_log(tmp_path: Path) -> None:
    """Although it is inside native code that holds the interpreter's lock."""
    code = (
        "import ctypes, pathlib, sys\n"
        "from chronotune.trial import ended_when_stuck, log_file\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with log_file(folder, 'quick') as file, ended_when_stuck(0.01, file): pass\n"
        "with log_file(folder, 'slow') as file, ended_when_stuck(0.01, file): ctypes.PyDLL(None).sleep(600)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=120, check=False)
    assert done.returncode == 1
    assert "Timeout" in (tmp_path / "logs/slow.log").read_text()
    assert not (tmp_path / "logs/quick.log").read_text()
