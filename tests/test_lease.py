"""One driver at a time, and a dead one is no obstacle."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chronotune import lease
from chronotune.errors import ChronotuneError, InputError
from chronotune.lease import Lease, identity, is_alive, read_holder


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


def test_a_host_of_the_same_name_is_another() -> None:
    """Told by its boot, as a container by its process numbers; so is this host before it was started again."""
    for told in ("boot", "numbers"):
        here = {**lease.identity(), told: "another"}
        assert is_alive(here)
        assert not is_alive({**here, "heartbeat": time.time() - lease.STALE_SECONDS - 1})


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


def _take_over(folder: Path) -> dict[str, object]:
    other = {**identity(), "host": "elsewhere"}
    file = folder / "new.json"
    file.write_text(json.dumps(other))
    file.replace(folder / "lease.json")
    return other


def test_a_holder_that_was_taken_over_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is interrupted, says who has the sweep, and touches the other's lease neither then nor at its end."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.01)
    interrupted: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, _: interrupted.append(number))
    try:
        held = Lease(tmp_path).__enter__()
        other = _take_over(tmp_path)
        held._beat.join(30)
        time.sleep(0)  # where Python runs the signal's handler
        assert interrupted == [signal.SIGINT]
        assert read_holder(tmp_path) == other
        with pytest.raises(ChronotuneError, match="on elsewhere took this sweep over"):
            held.__exit__(None, None, None)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert read_holder(tmp_path) == other


def test_a_lease_taken_between_two_beats_stays(tmp_path: Path) -> None:
    """Who leaves removes only its own."""
    with Lease(tmp_path):
        other = _take_over(tmp_path)
    assert read_holder(tmp_path) == other


def test_a_beat_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage comes back, and the lease is renewed as if nothing had been."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.01)
    replace, failures = Path.replace, [OSError("stale file handle"), OSError("no space")]

    def failing(self: Path, target: Path) -> Path:
        if failures:
            raise failures.pop()
        return replace(self, target)

    with Lease(tmp_path):
        first = read_holder(tmp_path)
        assert first is not None
        monkeypatch.setattr(Path, "replace", failing)
        for _ in range(500):
            time.sleep(0.01)
            now = read_holder(tmp_path)
            assert now is not None
            if now["heartbeat"] > first["heartbeat"] and not failures:
                break
        else:
            pytest.fail("the heartbeat never came back")
    assert list(tmp_path.iterdir()) == []


def test_a_lease_that_was_removed_is_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder drives on, so nobody else may begin."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.01)
    with Lease(tmp_path):
        (tmp_path / "lease.json").unlink()
        for _ in range(500):
            time.sleep(0.01)
            if read_holder(tmp_path) is not None:
                return
    pytest.fail("nobody holds the lease")


def test_the_lease_is_known_by_the_name_at_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that changes its name in another network does not lose its own sweep."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.01)
    with Lease(tmp_path):
        monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
        time.sleep(0.1)
    assert list(tmp_path.iterdir()) == []
