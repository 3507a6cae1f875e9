"""A tracking server that is down, dies, fails, loses answers or hangs: the sweep goes on, and all is caught up."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tracking_parts import SECRET, FakeSweep, Server, Store, whole_sweep

from chronotune.config.recipe import Tracking
from chronotune.tracking import Mirror, mirror, mirroring


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty MLflow database."""
    return Store(tmp_path / "store")


@pytest.fixture
def undisturbed(tmp_path: Path) -> Callable[[FakeSweep], Store]:
    """What a store holds after one mirror in peace."""

    def mirrored(sweep: FakeSweep) -> Store:
        peaceful = Store(tmp_path / "undisturbed")
        assert mirror(sweep.directory, peaceful.tracking).trouble is None
        return peaceful

    return mirrored


def test_a_server_writes_what_a_database_does(
    tmp_path: Path, store: Store, undisturbed: Callable[[FakeSweep], Store]
) -> None:
    """Over HTTP the runs are the same, and the artifacts arrive through the server."""
    sweep = whole_sweep(tmp_path / "sweep")
    with Server(store) as server:
        assert mirror(sweep.directory, server.tracking).trouble is None
        assert mirror(sweep.directory, server.tracking).points == 0
    assert store.points() == undisturbed(sweep).points()
    assert [path.name for path in (store.file.parent / "served").rglob("*.json")] == ["evaluation.json"]


def test_down_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line at the end names the server without its password, the cause and the way to catch up."""
    monkeypatch.setattr(mirroring, "_RETRY_SECONDS", 0)
    sweep = whole_sweep(tmp_path / "sweep")
    lines: list[str] = []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{_closed_port()}")
    with Mirror(sweep.directory, Tracking(), say=lines.append, every=0.01) as watching:
        report = watching.flush()
    assert [report.trouble] == lines
    assert "Connection refused" in lines[0]
    assert f"chronotune mirror {sweep.directory}" in lines[0]
    assert SECRET not in lines[0]
    assert "\n" not in lines[0]
    assert sweep.study.trial(3).state == "complete"


def test_dying_in_the_middle_and_coming_back(
    tmp_path: Path, store: Store, undisturbed: Callable[[FakeSweep], Store]
) -> None:
    """What was recorded while the server was away arrives after it came back, and nothing twice."""
    sweep = FakeSweep(tmp_path / "sweep")
    lines: list[str] = []
    seen = threading.Event()

    def note(_: int) -> bool:
        seen.set()
        return False

    with Server(store, before=note) as first:
        watching = Mirror(sweep.directory, first.tracking, say=lines.append, every=0.01)
        number = sweep.trial(0.9)
        with watching:
            assert seen.wait(20)
            first.__exit__(None, None, None)
            sweep.results(number, (0.9, 0.8, 0.7))
            sweep.study.finish(number, 576)
            sweep.finish(winner=number)
            with Server(store, first.port):
                assert watching.flush().trouble is None
    assert lines == []
    assert store.points() == undisturbed(sweep).points()


ABSENT, FAILED = "404 NOT FOUND", "500 INTERNAL SERVER ERROR"


@pytest.mark.parametrize("status", ["401 UNAUTHORIZED", "403 FORBIDDEN", ABSENT, FAILED])
def test_refusing_every_request(
    tmp_path: Path,
    store: Store,
    undisturbed: Callable[[FakeSweep], Store],
    monkeypatch: pytest.MonkeyPatch,
    status: str,
) -> None:
    """The sweep goes on and says it in one line without a secret; once let in, a later mirror brings everything."""
    monkeypatch.setattr(mirroring, "_RETRY_SECONDS", 0)
    sweep = whole_sweep(tmp_path / "sweep")
    lines, refusing = list[str](), [True]
    with Server(store, before=lambda _: bool(refusing), status=status) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{server.port}")
        with Mirror(sweep.directory, Tracking(), say=lines.append, every=0.01) as watching:
            pass
        assert [watching.report.trouble] == lines
        assert f" {status[:3]} " in lines[0]
        assert f"chronotune mirror {sweep.directory}" in lines[0]
        assert SECRET not in lines[0]
        assert "\n" not in lines[0]
        refusing.clear()
        assert mirror(sweep.directory, Tracking()).trouble is None
    assert store.points() == undisturbed(sweep).points()


@pytest.mark.parametrize(("served", "status"), [(False, FAILED), (True, FAILED), (False, ABSENT)])
def test_failing_at_any_request(
    tmp_path: Path,
    undisturbed: Callable[[FakeSweep], Store],
    monkeypatch: pytest.MonkeyPatch,
    served: bool,
    status: str,
) -> None:
    """Whichever request fails, unserved or with its answer lost, the next attempt completes the same runs."""
    monkeypatch.setattr(mirroring, "_RETRY_SECONDS", 0)
    sweep = FakeSweep(tmp_path / "sweep")
    sweep.finish(sweep.trial(0.9, 0.8, 0.7, end="complete"))
    expected = undisturbed(sweep)
    for failing in range(served, 15, 3):
        store = Store(tmp_path / f"store {failing}")
        outage = Server(store, after=failing.__eq__) if served else Server(store, before=failing.__eq__, status=status)
        with outage as server:
            report = mirror(sweep.directory, server.tracking)
            assert server.requests > 15
        assert report.trouble is None
        assert store.points() == expected.points()
        assert _shape(store) == _shape(expected)


def test_a_server_that_hangs_is_not_waited_for(tmp_path: Path, store: Store) -> None:
    """The end of a sweep waits as long as it was told, and says so."""
    sweep = whole_sweep(tmp_path / "sweep")
    lines: list[str] = []
    answer = threading.Event()
    with Server(store, before=lambda number: not answer.wait(60)) as server:
        with Mirror(sweep.directory, server.tracking, say=lines.append, every=0.01) as watching:
            assert watching.flush(timeout=0.5).trouble is not None
        answer.set()
    assert len(lines) == 1
    assert "longer than 0.5 seconds" in lines[0]


class _LastWords:
    """A mirror's thread that writes so many points in each wait for its end, then ends."""

    def __init__(self, watching: Mirror, points: list[int]) -> None:
        self._watching, self._points, self.waits = watching, points, list[float]()

    def join(self, timeout: float) -> None:
        self.waits.append(timeout)
        self._watching._copier._points += self._points.pop(0)  # type: ignore[union-attr]  # tracking is on

    def is_alive(self) -> bool:
        return bool(self._points)


@pytest.mark.parametrize(
    ("points", "timeout", "waits", "told"),
    [
        ([5, 3, 4], None, 3, "nothing was written yet"),
        ([5, 0, 4, 1], None, 2, "it took longer than 60 seconds"),
        ([1] * 50, None, 10, "it took longer than 300 seconds"),
        ([1] * 50, 30.0, 1, "it took longer than 30 seconds"),
    ],
)
def test_the_end_waits_while_a_slow_server_takes_something(
    tmp_path: Path, points: list[int], timeout: float | None, waits: int, told: str
) -> None:
    """As after an outage that ended a moment ago; one that takes nothing gets half a minute, any other five."""
    lines: list[str] = []
    watching = Mirror(tmp_path, Tracking(uri="http://127.0.0.1:1"), say=lines.append)
    watching._thread = last = _LastWords(watching, points)  # type: ignore[assignment]
    watching.flush(timeout)
    assert last.waits == [30.0] * waits
    assert told in lines[0]


def _shape(store: Store) -> dict[str, tuple[object, ...]]:
    runs = store.runs()
    parent = runs["sweep"].info.run_id
    return {
        name: (
            run.info.status,
            run.info.start_time,
            run.info.end_time,
            run.data.params,
            {key: value for key, value in run.data.tags.items() if key != "mlflow.parentRunId"},
            run.data.tags.get("mlflow.parentRunId") in (None, parent),
        )
        for name, run in runs.items()
    }


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_pauses_are_longer_at_first_and_while_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers start undisturbed, and a dead server is not asked every two seconds."""
    pauses, brings = list[float](), iter([True, False, False, False, False, True])
    watching = Mirror(tmp_path, Tracking(uri="http://127.0.0.1:1"))

    def wait(pause: float) -> bool:
        pauses.append(pause)
        return len(pauses) > 6

    monkeypatch.setattr(watching._ending, "wait", wait)
    monkeypatch.setattr(watching._copier, "attempt", lambda driven: next(brings))
    monkeypatch.setattr(watching._copier, "persist", lambda driven: None)
    watching._watch()
    assert pauses == [10, 2, 4, 8, 16, 30, 2]
