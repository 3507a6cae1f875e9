"""One driver at a time, and a dead one is no obstacle."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from chronotune import lease, standalone, sweep
from chronotune.data.prepare import load
from chronotune.errors import ChronotuneError, InputError
from chronotune.evaluation import evaluate_again
from chronotune.lease import Lease, identity, is_alive, read_holder
from chronotune.study import JOURNAL
from chronotune.sweep import resume_sweep
from sweep_parts import judged_sweep, small_recipe


def test_a_live_driver_is_named(tmp_path: Path) -> None:
    """The second one is told who has it; afterwards the folder is free."""
    with Lease(tmp_path):
        with pytest.raises(InputError, match=f"process {os.getpid()} on {socket.gethostname()}"), Lease(tmp_path):
            pass
        assert read_holder(tmp_path) is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "touch", [resume_sweep, evaluate_again, lambda directory: standalone._noted(directory, load(small_recipe()))]
)
def test_a_study_is_opened_under_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, touch: Callable[[Path], Any]
) -> None:
    """Who is refused has repaired nothing before: the line is still being written, the lock is held."""
    monkeypatch.setattr(sweep, "locate", lambda _: None)
    journal = judged_sweep(tmp_path / "one", "ship tuned") / JOURNAL
    with journal.open("ab") as file:
        file.write(b'{"op_code":8,"work')
    lock, before = journal.with_name(f"{JOURNAL}.lock"), journal.read_bytes()
    lock.symlink_to(journal)
    with Lease(journal.parent), pytest.raises(InputError, match="one driver at a time"):
        touch(journal.parent)
    assert journal.read_bytes() == before
    assert lock.is_symlink()


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
    """The file is renewed, complete at any moment, and its date is that of the beat."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.01)
    with Lease(tmp_path):
        first = read_holder(tmp_path)
        assert first is not None
        os.utime(tmp_path / "lease.json", (0, 0))
        for _ in range(500):
            time.sleep(0.01)
            now = read_holder(tmp_path)
            assert now is not None
            if now["heartbeat"] > first["heartbeat"] and (tmp_path / "lease.json").stat().st_mtime > 0:
                return
    pytest.fail("the heartbeat never changed")


def test_an_unreadable_lease_is_replaced(tmp_path: Path) -> None:
    """Half a file can only come from a dead writer."""
    (tmp_path / "lease.json").write_text('{"host": ')
    with Lease(tmp_path):
        assert read_holder(tmp_path) is not None


def _take_over(folder: Path, **changes: Any) -> dict[str, Any]:
    other = {**identity(), "host": "elsewhere", **changes}
    file = folder / "new.json"
    file.write_text(json.dumps(other))
    file.replace(folder / "lease.json")
    return other


def _written(folder: Path) -> Any:
    return json.loads((folder / "lease.json").read_text())


def _grow_old(folder: Path) -> None:
    then = (folder / "lease.json").stat().st_mtime - lease.STALE_SECONDS - 1
    os.utime(folder / "lease.json", (then, then))


@pytest.mark.parametrize("moment", ["judged", "about to be removed"])
def test_of_two_that_follow_a_dead_driver_one_drives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """One is slow: the other comes when it has judged the dead one, or when it has looked for the last time."""
    _take_over(tmp_path, host=socket.gethostname(), started=1.0)
    judge, remove = lease.is_alive, Path.unlink
    fast, drivers = iter([Lease(tmp_path)]), list[Lease]()

    def enter(one: Lease) -> None:
        with suppress(InputError):
            drivers.append(one.__enter__())

    def judging(holder: dict[str, Any]) -> bool:
        alive = judge(holder)
        for other in fast if moment == "judged" else ():
            enter(other)
        return alive

    def removing(self: Path, missing_ok: bool = False) -> None:
        for other in fast if self.name == "lease.json" and moment != "judged" else ():
            enter(other)
        remove(self, missing_ok)

    monkeypatch.setattr(lease, "is_alive", judging)
    monkeypatch.setattr(Path, "unlink", removing)
    enter(Lease(tmp_path))
    assert next(fast, None) is None
    for driver in drivers:
        driver.__exit__(None, None, None)
    assert len(drivers) == 1
    assert list(tmp_path.iterdir()) == []


def test_who_died_while_it_took_over_is_no_obstacle(tmp_path: Path) -> None:
    """Nor does it leave anything."""
    _take_over(tmp_path, host=socket.gethostname(), started=1.0)
    (tmp_path / "lease.json.heir").write_text((tmp_path / "lease.json").read_text())
    with Lease(tmp_path):
        assert _written(tmp_path)["started"] != 1.0
    assert list(tmp_path.iterdir()) == []


def test_who_takes_over_now_is_named(tmp_path: Path) -> None:
    """It will have the sweep in a moment, so nobody else may."""
    dead = _take_over(tmp_path, host=socket.gethostname(), started=1.0)
    (tmp_path / "lease.json.heir").write_text(json.dumps(identity()))
    with pytest.raises(InputError, match=f"process {os.getpid()} on {socket.gethostname()}"), Lease(tmp_path):
        pass
    assert _written(tmp_path) == dead


@pytest.mark.parametrize(("theirs", "ours"), [(-3600, 0), (3600, 0), (0, -3600), (0, 3600)])
def test_wrong_clocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: int, ours: int) -> None:
    """Behind or ahead, there or here: a holder elsewhere is judged by the clock that dates the files."""
    now = time.time
    _take_over(tmp_path, pid=4711, heartbeat=now() + theirs)
    monkeypatch.setattr(time, "time", lambda: now() + ours)
    with pytest.raises(InputError, match="process 4711 on elsewhere"), Lease(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["lease.json"]
    _grow_old(tmp_path)
    with Lease(tmp_path):
        assert _written(tmp_path)["pid"] == os.getpid()


def test_looking_needs_no_leave_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This host's clock must do there; for a process of this host nothing is written anyway."""
    tried = list[Path]()

    def refused(dir: Path, **_: Any) -> None:  # noqa: A002 - the name is Python's
        tried.append(dir)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    for host in (socket.gethostname(), "elsewhere"):
        _take_over(tmp_path, host=host)
        assert is_alive(read_holder(tmp_path) or {})
    _grow_old(tmp_path)
    assert not is_alive(read_holder(tmp_path) or {})
    assert tried == [tmp_path, tmp_path]


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
        assert _written(tmp_path) == other
        with pytest.raises(ChronotuneError, match="on elsewhere took this sweep over"):
            held.__exit__(None, None, None)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert _written(tmp_path) == other


def test_a_lease_taken_between_two_beats_stays(tmp_path: Path) -> None:
    """Who leaves removes only its own."""
    with Lease(tmp_path):
        other = _take_over(tmp_path)
    assert _written(tmp_path) == other


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
