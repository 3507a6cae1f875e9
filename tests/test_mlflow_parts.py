"""The MLflow server of the tests: a dead one is noticed, and none of its processes outlives it. None is started."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from mlflow_parts import NoServerError, kill_group, wait_for_answer

PARENT = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid, flush=True)
time.sleep(600)
"""


def test_a_server_that_ends_is_not_waited_for() -> None:
    """It says with which code."""
    server = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    server.wait()
    with pytest.raises(NoServerError, match="ends with code 3"):
        wait_for_answer("http://127.0.0.1:9", server)


def test_the_children_of_a_server_end_with_it() -> None:
    """And one that has ended already is no error."""
    server = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, start_new_session=True)
    assert server.stdout is not None
    child = psutil.Process(int(server.stdout.readline()))
    kill_group(server)
    server.communicate()
    assert not [left for left in psutil.wait_procs([child], timeout=60)[1] if left.status() != psutil.STATUS_ZOMBIE]
    kill_group(server)
