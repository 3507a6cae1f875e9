"""The logic of the scripts in tests/cluster, which are run by hand: what they call a sound sweep."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import timeline
from machines import Machines, free_ports

from chronotune.study import Study
from sweep_parts import ask, new_study, result


def _done(study: Study, results: tuple[int, ...] = (3, 27)) -> None:
    number = ask(study)
    for windows in results:
        study.record(number, result(windows, 0.5))
    study.finish(number, 27)


def test_a_sweep_is_sound_when_every_trial_is_there_once(tmp_path: Path) -> None:
    """A lost, an unended and a surplus trial, and a sweep without its evaluation, are each told of."""
    study = new_study(tmp_path)
    assert timeline.verdict(tmp_path / "none", 2) == ["there is no study"]
    _done(study)
    assert timeline.verdict(tmp_path, 2) == ["trials are [0], not 0 to 1", "it was not evaluated"]
    ask(study)
    assert timeline.verdict(tmp_path, 2) == ["trial 1 is running", "it was not evaluated"]
    assert timeline.results(tmp_path) == 2


def test_what_is_found_out_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dashboard's answers, exit codes, and whether a worker that had to go kept its work."""
    nodes = Machines(tmp_path)
    story = timeline.Play(tmp_path, nodes)
    monkeypatch.setattr(Machines, "head", lambda _: None)
    monkeypatch.setattr(Machines, "add", lambda *_: None)
    monkeypatch.setattr(Machines, "notice", lambda *_: None)
    gone: Any = SimpleNamespace(poll=lambda: 0, children=lambda recursive: [])
    nodes.nodes = dict.fromkeys("cdg", gone)
    answers, code = iter([401, 403, 200, 200, 403, 200]), [0]
    monkeypatch.setattr(Machines, "answer", lambda *_: next(answers))
    monkeypatch.setattr(timeline, "trains", lambda *_: True)
    monkeypatch.setattr(story, "call", lambda *_: code[0])
    (tmp_path / "shared/sweeps/timeline/logs").mkdir(parents=True)
    (tmp_path / "shared/sweeps/timeline/logs/0.log").write_text("told to go: 5 windows are kept")
    for act in (story.begin, story.be_noticed, story.follow):
        act()
    assert story.wrong == []
    (tmp_path / "shared/sweeps/timeline/logs/0.log").write_text("told to go: 0 windows are kept")
    code[0] = 1
    for act in (story.begin, story.be_noticed, story.follow):
        act()
    ends = [told.rpartition(": ")[2] for told in story.wrong]
    assert ends == ["HTTP 200, 403, 200", "0", "exit 1"]


def test_no_node_is_waited_for_when_the_sweep_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody trains there any more: that no work was kept is what was wrong."""
    story = timeline.Play(tmp_path, Machines(tmp_path))
    node: Any = SimpleNamespace(children=lambda recursive: [])
    story.machines.nodes = {"c": node}
    monkeypatch.setattr(Machines, "add", lambda *_: None)
    story.directory.mkdir(parents=True)
    study = new_study(story.directory)
    assert not timeline.ended(story.directory)
    study.note("evaluation", {"rows": []})
    story.be_noticed()
    assert story.wrong == ["workers that kept their work before they went: 0"]


def test_who_trains_is_read_from_the_logs(tmp_path: Path) -> None:
    """By process; one that has only begun does not yet train."""
    (tmp_path / "logs/finalists").mkdir(parents=True)
    log = "... runs in process 11 on a\n... 200 windows, sql 0.5\n... runs in process 22 on b\n"
    (tmp_path / "logs/finalists/0.log").write_text(log)
    assert timeline.trains(tmp_path, {11, 12})
    assert not timeline.trains(tmp_path, {22})


def test_work_that_was_kept_must_be_taken_up(tmp_path: Path) -> None:
    """By another worker, later, and at that very place; where nothing was kept, there is nothing to take up."""
    (tmp_path / "logs").mkdir()
    first, second = tmp_path / "logs/1.log", tmp_path / "logs/2.log"
    first.write_text("... goes on from 52 windows\n... told to go: 52 windows are kept\n... goes on from 5 windows\n")
    second.write_text("... told to go: 0 windows are kept\n")
    assert timeline.unclaimed(tmp_path) == ["trial 1 did not go on from the 52 windows that were kept"]
    first.write_text("... told to go: 52 windows are kept\n... goes on from 52 windows\n")
    assert timeline.unclaimed(tmp_path) == []


def test_a_lost_machine_takes_all_its_processes(tmp_path: Path) -> None:
    """Also those that its own processes have started."""
    code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    with Machines(tmp_path) as nodes:
        root = psutil.Popen([sys.executable, "-c", code + "time.sleep(60)"])
        nodes.nodes["a"] = root
        while not root.children():
            pass
        [child] = root.children()
        nodes.kill("a")
        assert not root.is_running()
        _wait_for_the_end(child)


def _wait_for_the_end(process: psutil.Process) -> None:
    """A process that was killed ends soon; nobody may be there to collect it."""
    for _ in range(100):
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {process.pid} still runs five seconds after it was killed")


def test_the_token_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is on no command line: nodes read the file."""
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere")
    with Machines(tmp_path) as nodes:
        assert nodes.token_file.stat().st_mode & 0o077 == 0
        environment = nodes.environment
        assert environment["RAY_AUTH_MODE"] == "token"
        assert nodes.token not in environment.values()
        assert "RAY_ADDRESS" not in environment


def test_no_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that is used, nor one of those that the system gives away: nodes take theirs only seconds later."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        used = taken.getsockname()[1]
        [first] = free_ports(1)
        spare = _unused()
        monkeypatch.setattr("random.choice", _in_turn([first, used, spare]))
        assert free_ports(1) == [spare]
    assert first < 32_000


def _in_turn(ports: list[int]) -> Callable[[object], int]:
    left = iter(ports)
    return lambda _: next(left)


def _unused() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
