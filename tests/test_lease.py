"""One driver at a time, and a dead one is no obstacle."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chronotune import lease
from chronotune.errors import InputError
from chronotune.lease import Lease, is_alive, read_holder


def test_a_live_driver_is_named(tmp_path: Path) -> None:
    """The second one is told who has it; afterwards the folder is free."""
    with Lease(tmp_path):
        with pytest.raises(InputError, match=f"process {os.getpid()} on {socket.gethostname()}"), Lease(tmp_path):
            pass
        assert read_holder(tmp_path) is not None
    assert list(tmp_path.iterdir()) == []


def test_a_killed_driver_is_taken_over_at_once(tmp_path: Path) -> None:
    """A process of this host that is gone holds nothing."""
    code = "import os, sys, pathlib, chronotune.lease as l; l.Lease(pathlib.Path(sys.argv[1])).__enter__(); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False, timeout=60)
    holder = read_holder(tmp_path)
    assert holder is not None
    assert not is_alive(holder)
    with Lease(tmp_path):
        assert json.loads((tmp_path / "lease.json").read_text())["pid"] == os.getpid()


def test_a_later_process_of_the_same_number_is_not_the_holder(tmp_path: Path) -> None:
    """Process numbers come again; the start time tells them apart."""
    with Lease(tmp_path):
        holder = read_holder(tmp_path)
    assert holder is not None
    assert is_alive(holder)
    assert not is_alive({**holder, "started": holder["started"] - 100})
    assert not is_alive({**holder, "boot": "another"})


def test_another_host_is_believed_while_its_heart_beats() -> None:
    """Its processes cannot be seen from here."""
    far = {"host": "elsewhere", "pid": 1, "boot": "x", "heartbeat": time.time()}
    assert is_alive(far)
    assert not is_alive({**far, "heartbeat": time.time() - lease.STALE_SECONDS - 1})


def test_the_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is renewed, complete at any moment."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.01)
    with Lease(tmp_path):
        first = read_holder(tmp_path)
        assert first is not None
        for _ in range(500):
            time.sleep(0.01)
            now = read_holder(tmp_path)
            assert now is not None
            if now["heartbeat"] > first["heartbeat"]:
                return
    pytest.fail("the heartbeat never changed")


def test_an_unreadable_lease_is_replaced(tmp_path: Path) -> None:
    """Half a file can only come from a dead writer."""
    (tmp_path / "lease.json").write_text('{"host": ')
    with Lease(tmp_path):
        assert read_holder(tmp_path) is not None
