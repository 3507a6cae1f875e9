"""What a sweep looks like in MLflow, and that any number of mirrors write it once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tracking_parts import FULL, SECRET, FakeSweep, Store, first_contact, whole_sweep

from chronotune.config.recipe import Tracking
from chronotune.errors import ChronotuneError, InputError
from chronotune.lease import Lease
from chronotune.study import Reading, Result
from chronotune.tracking import Mirror, MirrorReport, mirror, mirror_again, mirroring, runs
from chronotune.tracking.content import MirroredRun


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty MLflow database."""
    return Store(tmp_path / "store")


def test_a_sweep_is_one_parent_and_one_child_a_trial(tmp_path: Path, store: Store) -> None:
    """Params, tags, states, times and the series of metrics by windows seen are all there."""
    sweep = whole_sweep(tmp_path / "sweep")
    report = mirror(sweep.directory, store.tracking)
    assert report == MirrorReport(store.uri, points=report.points, results=8)
    runs = store.runs()
    parent, won = runs.pop("sweep"), runs["trial 0003"]
    assert sorted(runs) == ["trial 0000", "trial 0001", "trial 0002", "trial 0003"]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert [runs[name].info.status for name in sorted(runs)] == ["FAILED", "FINISHED", "FINISHED", "FINISHED"]
    assert runs["trial 0001"].data.tags["chronotune.state"] == "pruned"
    assert runs["trial 0000"].data.tags["chronotune.reason"] == "the loss is not finite"
    assert won.data.params["context_length"] == "96"
    assert won.data.tags["chronotune.device"] == "cpu"
    history = store.client.get_metric_history(won.info.run_id, "sql")
    assert [(point.step, point.value) for point in history] == [(64, 0.7), (192, 0.5), (576, 0.55)]
    assert won.data.metrics == {"sql": 0.55, "mae": 1.1, "train_loss": 3.0, "seconds": 30.0, "steps": 72.0}
    assert history[1].timestamp - history[0].timestamp == 10_000
    record = sweep.study.trial(3)
    assert record.started is not None
    assert won.info.start_time == round(record.started.timestamp() * 1000)


def test_the_parent_sums_up_the_sweep(tmp_path: Path, store: Store) -> None:
    """Recipe, fingerprints, zero-shot against the best so far, test scores, and where the weights lie."""
    sweep = whole_sweep(tmp_path / "sweep")
    mirror(sweep.directory, store.tracking)
    parent = store.runs()["sweep"]
    assert parent.info.status == "FINISHED"
    assert (parent.info.start_time, parent.info.end_time) == (1767323045000, 1767330245000)
    assert parent.data.params["budget.windows"] == "576"
    assert json.loads(parent.data.params["data.known_future"]) == ["etr"]
    assert parent.data.metrics["zero_shot.sql"] == 0.8
    assert parent.data.metrics["test.zero_shot.sql"] == 0.8
    assert parent.data.metrics["test.best.mae"] == 1.0
    assert parent.data.metrics["winner.score"] == 0.5
    assert parent.data.metrics["test.seasonal_naive_24.sql"] == 1.0
    best = store.client.get_metric_history(parent.info.run_id, "best.sql")
    assert [(point.step, point.value) for point in best] == [(3, 0.6), (4, 0.5)]
    for run in (parent, store.runs()["trial 0003"]):
        tags = {key: value for key, value in run.data.tags.items() if key.startswith("chronotune.winner.")}
        told = {"number": "3", "sha256": "abc", "bytes": "7", "path": str(sweep.directory / "winner")}
        assert {f"chronotune.winner.{key}": value for key, value in told.items()}.items() <= tags.items()
    assert parent.data.tags["chronotune.fingerprint.data"] == "d4ta"
    assert parent.data.tags["chronotune.version"] == "0.1.0"


def test_the_finalists_are_children_too(tmp_path: Path, store: Store) -> None:
    """One for each seed, marked; the winner's run is that of the searched trial."""
    sweep = whole_sweep(tmp_path / "sweep")
    second = sweep.study.finalists()
    sweep.study.note("finalists", {"trials": [3], "seeds": [1, 2]})
    for seed, score in ((1, 0.5), (2, 0.6)):
        number = sweep.study.repeat(3, seed, into=second).number
        second.record(number, Result(FULL, score, {"sql": score}, {"seconds": 10.0}))
        second.finish(number, FULL)
    mirror(sweep.directory, store.tracking)
    runs = store.runs()
    assert len(runs) == 7
    repeat = runs["trial 0003, seed 2"]
    assert repeat.data.metrics["sql"] == 0.6
    assert (repeat.data.tags["chronotune.finalist"], repeat.data.tags["chronotune.seed"]) == ("3", "2")
    assert repeat.data.params == runs["trial 0003"].data.params
    assert "chronotune.winner.number" in runs["trial 0003"].data.tags
    assert "chronotune.winner.number" not in repeat.data.tags
    assert mirror(sweep.directory, store.tracking).points == 0


def test_a_second_mirror_writes_nothing(tmp_path: Path, store: Store) -> None:
    """A mirror with no memory of the first, of a folder that was moved, finds everything in place."""
    sweep = whole_sweep(tmp_path / "sweep")
    assert mirror(sweep.directory, store.tracking).points > 0
    before = store.points()
    moved = sweep.directory.rename(tmp_path / "moved")
    assert mirror(moved, store.tracking) == MirrorReport(store.uri, points=0, results=8)
    assert store.points() == before
    assert len(store.runs()) == 5


def test_a_mirror_only_reads_the_sweep(tmp_path: Path, store: Store) -> None:
    """Study and all else in its folder stay the same to the last byte: mirrored once, or from its driver's process."""
    sweep = whole_sweep(tmp_path / "sweep")

    def held() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sweep.directory.iterdir()}

    before = held()
    assert mirror(sweep.directory, store.tracking).points > 0
    assert held() == before
    for experiment, read in (("by itself", None), ("beside its driver", sweep.study.shared)):
        tracking = Tracking(uri=store.uri, experiment=experiment)
        with Mirror(sweep.directory, tracking, read=read, every=0.01) as watching:
            pass
        assert watching.report.points > 0
        assert held() == before
    assert "study.journal" in before


def test_a_later_look_takes_up_only_what_changed(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended trials and unchanged files are left alone; another winner, or a failure between, has all looked at."""
    sweep, taken, read = whole_sweep(tmp_path / "sweep"), list[str](), list[str]()
    bring, attach = runs.Runs.bring, runs.Runs.attach

    def bringing(self: runs.Runs, run: MirroredRun) -> int:
        taken.append(run.key)
        return bring(self, run)

    def attaching(self: runs.Runs, key: str, texts: dict[str, str]) -> None:
        read.append(key)
        attach(self, key, texts)

    monkeypatch.setattr(runs.Runs, "bring", bringing)
    monkeypatch.setattr(runs.Runs, "attach", attaching)
    copier = mirroring._Copier(sweep.directory, store.tracking)

    def look() -> list[str]:
        taken.clear()
        copier.attempt(driven=False)
        assert copier.report.trouble is None
        return [*taken]

    assert look() == ["0", "1", "2", "3", "sweep"]
    assert look() == ["sweep"]
    number = sweep.trial(0.4)
    assert look() == look() == ["4", "sweep"]  # it runs
    sweep.study.finish(number, FULL)
    assert look() == ["4", "sweep"]
    assert look() == ["sweep"]
    sweep.study.note("winner", {**sweep.study.attribute("winner"), "number": number})
    assert look() == ["0", "1", "2", "3", "4", "sweep"]
    assert "chronotune.winner.number" in store.runs()["trial 0004"].data.tags
    assert "chronotune.winner.number" not in store.runs()["trial 0003"].data.tags
    assert read == ["sweep"]
    (sweep.directory / "report.html").write_text("<p>")
    assert look() == ["sweep"]
    assert len(read) == 2
    with monkeypatch.context() as broken:
        broken.setattr(runs.Runs, "adopt", None)
        copier.attempt(driven=False)
    assert len(look()) == 6


def test_two_sweeps_of_one_recipe_stay_apart(tmp_path: Path, store: Store) -> None:
    """Name, creation and identity tell sweeps apart, not the recipe."""
    for name in ("first", "second"):
        sweep = FakeSweep(tmp_path / name)
        mirror(sweep.directory, store.tracking)
    assert sorted(store.runs()) == ["first", "second"]


def test_a_mirror_killed_before_its_bookkeeping_writes_no_point_twice(tmp_path: Path, store: Store) -> None:
    """Points whose tag was never written are the same to the last bit when they are written again."""
    sweep = whole_sweep(tmp_path / "sweep")
    mirror(sweep.directory, store.tracking)
    before = store.points()
    for run in store.runs().values():
        if "chronotune.logged" in run.data.tags:
            store.client.delete_tag(run.info.run_id, "chronotune.logged")
    assert mirror(sweep.directory, store.tracking).trouble is None
    assert store.points() == before


def test_a_running_sweep_is_followed(tmp_path: Path, store: Store) -> None:
    """What is recorded while the mirror watches arrives while it watches."""
    sweep = FakeSweep(tmp_path / "sweep")
    number = sweep.trial(0.9)
    with Mirror(sweep.directory, store.tracking, every=0.05) as watching:
        _until(lambda: len(store.points()) == 5)
        assert store.runs()["trial 0000"].info.status == "RUNNING"
        sweep.results(number, (0.9, 0.8))
        _until(lambda: len(store.points()) == 10)
        sweep.results(number, (0.9, 0.8, 0.7))
        sweep.study.finish(number, 576)
        sweep.finish(winner=number)
    assert watching.report.trouble is None
    assert len(store.client.get_metric_history(store.runs()["trial 0000"].info.run_id, "sql")) == 3
    assert {run.info.status for run in store.runs().values()} == {"FINISHED"}


def test_beside_its_driver_it_reads_what_that_has_read(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal is in memory once: no reader of the mirror's own, also when MLflow was away in between."""
    sweep, threads = FakeSweep(tmp_path / "sweep"), set[str]()
    number, shared, failing = sweep.trial(0.9), sweep.study.shared, [True]
    assert shared is not None

    def read() -> Reading:
        threads.add(threading.current_thread().name)
        if failing:
            raise ConnectionError(failing.pop())
        return shared()

    monkeypatch.setattr(mirroring, "Reader", None)
    with Mirror(sweep.directory, store.tracking, read=read, every=0.05) as watching:
        _until(lambda: len(store.points()) == 5)
        sweep.results(number, (0.9, 0.8))
        _until(lambda: len(store.points()) == 10)
    assert watching.report.trouble is None
    assert threads == {"mlflow-mirror"}
    assert store.runs()["trial 0000"].info.status == "KILLED"


def test_nothing_stays_running_once_nobody_drives(tmp_path: Path, store: Store) -> None:
    """Runs follow the lease: running, killed with the driver, running again, finished; old reasons and ends go."""
    sweep = FakeSweep(tmp_path / "sweep")
    number = sweep.trial(0.9)

    def states() -> list[str]:
        assert mirror(sweep.directory, store.tracking).trouble is None
        return [store.runs()[name].info.status for name in ("sweep", "trial 0000")]

    with Lease(sweep.directory):
        assert states() == ["RUNNING", "RUNNING"]
    assert states() == ["KILLED", "KILLED"]
    assert store.runs()["trial 0000"].info.end_time == store.runs()["trial 0000"].info.start_time + 10_000
    with Lease(sweep.directory):
        assert states() == ["RUNNING", "RUNNING"]
        sweep.results(number, (0.9, 0.8, 0.7))
        sweep.study.finish(number, 576)
        sweep.finish(winner=number)
        assert states() == ["FINISHED", "FINISHED"]


def test_a_flush_after_an_interruption_leaves_nothing_running(tmp_path: Path, store: Store) -> None:
    """The driver flushes while it still holds the lease, but its trials are over."""
    sweep = FakeSweep(tmp_path / "sweep")
    sweep.trial(0.9)
    with Lease(sweep.directory), Mirror(sweep.directory, store.tracking) as watching:
        watching.flush()
        assert {run.info.status for run in store.runs().values()} == {"KILLED"}


def test_a_sweep_of_failures_failed(tmp_path: Path, store: Store) -> None:
    """When all wanted trials ended and none was complete, the parent says so."""
    sweep = FakeSweep(tmp_path / "sweep")
    for _ in range(4):
        sweep.trial(end="failed")
    mirror(sweep.directory, store.tracking)
    assert store.runs()["sweep"].info.status == "FAILED"


def test_an_extension_moves_the_marks_of_the_winner(tmp_path: Path, store: Store) -> None:
    """A former winner's child loses the tags of the winner, and the new test scores are the latest."""
    sweep = whole_sweep(tmp_path / "sweep")
    mirror(sweep.directory, store.tracking)
    sweep.study.note("ended", None)
    best = sweep.trial(0.6, 0.5, 0.4, end="complete")
    rows = [{"model": "best", "context_length": 96, "sql": 0.45}]
    sweep.study.note("test_openings", ["2026-01-02T04:04:05+00:00", "2026-01-03T04:04:05+00:00"])
    sweep.study.note("evaluation", {"rows": rows})
    sweep.study.note("winner", {"number": best, "windows_seen": 576})
    mirror(sweep.directory, store.tracking)
    runs = store.runs()
    assert "chronotune.winner.number" not in runs["trial 0003"].data.tags
    assert runs["trial 0004"].data.tags["chronotune.winner.number"] == "4"
    assert runs["sweep"].data.tags.get("chronotune.winner.sha256") is None
    history = store.client.get_metric_history(runs["sweep"].info.run_id, "test.best.sql")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.45)]
    assert runs["sweep"].data.metrics["test.best.sql"] == 0.45


def test_artifacts_follow_their_files_without_credentials(tmp_path: Path, store: Store) -> None:
    """Recipe and best configuration are artifacts, renewed when they change; a password in the URI is in none."""
    uri = f"http://me:{SECRET}@tracking.example/x"
    sweep = whole_sweep(tmp_path / "sweep", tracking_uri="http://tracking.example/x")
    recipe = sweep.study.attribute("recipe")
    sweep.study.note("recipe", {**recipe, "tracking": {**recipe["tracking"], "uri": uri}})  # as earlier versions let it
    (sweep.directory / "recipe.yaml").write_text(f"tracking:\n  uri: {uri}\n")
    mirror(sweep.directory, store.tracking)
    (sweep.directory / "winner").mkdir()
    (sweep.directory / "winner" / "preset.yaml").write_text("name: first")
    (sweep.directory / "winner" / "model.safetensors").write_text("weights stay here")
    mirror(sweep.directory, store.tracking)
    (sweep.directory / "winner" / "preset.yaml").write_text("name: second")
    mirror(sweep.directory, store.tracking)
    parent = store.runs()["sweep"]
    folder = Path(parent.info.artifact_uri)
    assert folder.is_relative_to(store.file.parent / "mlruns")
    texts = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert sorted(texts) == ["evaluation.json", "recipe.yaml", "winner/preset.yaml"]
    assert texts["winner/preset.yaml"] == "name: second"
    assert texts["recipe.yaml"] == "tracking:\n  uri: http://***@tracking.example/x\n"
    assert parent.data.params["tracking.uri"] == "http://***@tracking.example/x"


def test_mirrors_at_the_same_time_share_the_runs(tmp_path: Path, store: Store) -> None:
    """Four mirrors that start together leave one parent, one child a trial and each point once."""
    sweep = whole_sweep(tmp_path / "sweep")
    alone = Store(tmp_path / "alone")
    mirror(sweep.directory, alone.tracking)
    threads = [threading.Thread(target=mirror, args=(sweep.directory, store.tracking)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.runs()) == 5
    assert store.points() == alone.points()


def test_long_and_many_values_fit(tmp_path: Path, store: Store) -> None:
    """More params than a batch takes, and values longer than MLflow takes, are split and cut."""
    sweep = FakeSweep(tmp_path / "sweep")
    recipe = {"objective": "sql", "many": {f"k{i}": i for i in range(230)}, "long": "x" * 7000, "odd": {"a b!": 1}}
    sweep.study.note("recipe", recipe)
    sweep.study.fail(sweep.trial(0.5), "y" * 9000)
    assert mirror(sweep.directory, store.tracking).trouble is None
    params = store.runs()["sweep"].data.params
    assert len([key for key in params if key.startswith("many.")]) == 230
    assert len(params["long"]) == 6000
    assert params["odd"] == '{"a b!": 1}'
    assert len(store.runs()["trial 0000"].data.tags["chronotune.reason"]) == 5000


def test_any_sweep_can_be_written_to_any_store(tmp_path: Path, store: Store) -> None:
    """By the command: also one whose recipe names another place, and twice without writing twice."""
    sweep = whole_sweep(tmp_path / "s", "http://127.0.0.1:9")  # nobody listens there
    first = mirror_again(sweep.directory, store.uri, "elsewhere")
    assert first.points > 0
    assert mirror_again(sweep.directory, store.uri, "elsewhere").points == 0
    again = r"127\.0\.0\.1:9 lacks part of this sweep .*`chronotune mirror \S+ --experiment 'of mine'` catches up"
    with pytest.raises(ChronotuneError, match=again):
        mirror_again(sweep.directory, experiment="of mine")


def test_a_deleted_experiment_is_not_written_to(tmp_path: Path, store: Store) -> None:
    """MLflow finds it by its name; somebody did not want it, so it is told and not restored."""
    sweep = whole_sweep(tmp_path / "sweep")
    gone = store.client.create_experiment("chronotune")
    store.client.delete_experiment(gone)
    with pytest.raises(ChronotuneError, match=f"'chronotune' is deleted there; restore it .*-x {gone}"):
        mirror_again(sweep.directory, store.uri)
    store.client.restore_experiment(gone)
    assert mirror_again(sweep.directory, store.uri).points > 0


def test_disabled_tracking_does_nothing(tmp_path: Path) -> None:
    """No study is opened, no thread started, no line said."""
    off, lines = Tracking(enabled=False, uri="nowhere"), list[str]()
    with Mirror(tmp_path, off, say=lines.append) as watching:
        assert not any(thread.name == "mlflow-mirror" for thread in threading.enumerate())
    assert watching.flush() == mirror(tmp_path, off) == MirrorReport()
    assert lines == []


def test_a_folder_without_a_sweep(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked to mirror it once, that is the user's mistake; beside a driver it is one line at the end."""
    monkeypatch.setattr(mirroring, "_RETRY_SECONDS", 0)
    with pytest.raises(InputError, match="holds study"):
        mirror(tmp_path, store.tracking)
    lines: list[str] = []
    with Mirror(tmp_path, store.tracking, say=lines.append, every=0.01) as watching:
        pass
    assert watching.flush() == watching.report
    assert len(lines) == 1
    assert "lacks part of this sweep" in lines[0]


def test_the_default_is_quiet_and_where_mlflow_ui_looks() -> None:
    """In an empty folder the mirror creates ./mlflow.db, and neither MLflow nor its migrations print anything."""
    done, folder = first_contact()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in folder.iterdir()) == ["mlflow.db", "mlruns"]


def _until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
