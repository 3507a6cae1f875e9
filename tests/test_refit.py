"""The winner trained once more on training and validation: durable, repeatable, and marked wherever it is shown."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from chronotune import trial
from chronotune.again import LastWorker
from chronotune.catalog import Entry
from chronotune.challenger import choose
from chronotune.compare import compare
from chronotune.config.load import load_model, load_recipe
from chronotune.config.recipe import Finalists, Recipe
from chronotune.data.panel import Panel, TrialData
from chronotune.data.prepare import Dataset, load, trial_data, with_validation
from chronotune.endings import ToldToGo
from chronotune.errors import InputError
from chronotune.export import export_winner, write_winner
from chronotune.gate import UNVERIFIED
from chronotune.page import write_report
from chronotune.refit import refit
from chronotune.report import conclude
from chronotune.search import result_of
from chronotune.standalone import _sweep_of
from chronotune.study import Result, Study, TrialRecord
from chronotune.tracking.content import runs_of
from chronotune.train import train_recipe
from chronotune.trial import Assignment, TrialRun, Worker
from engine_parts import small_model
from page_parts import evaluated
from sweep_parts import POINT, ask, judged_sweep, new_study, result, small_recipe

SEED = 5


@dataclass(frozen=True)
class Sweep:
    """A sweep whose winner is written, as its driver has it before the refit."""

    study: Study
    worker: LastWorker
    record: TrialRecord
    dataset: Dataset

    def refit(self, worker: Any = None) -> Mapping[str, Any]:
        """What the study notes of the winner when it has its refit."""
        refit(self.study, self.worker.assignment, worker or self.worker, self.dataset.panel)
        noted: Mapping[str, Any] = self.study.attribute("winner")
        return noted


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The small one with a refit, and the small model as a folder."""
    folder = tmp_path_factory.mktemp("weights")
    small_model().save_pretrained(folder)
    return small_recipe(folder, finalists=Finalists(top=1, seeds=1, refit=True))


@pytest.fixture
def sweep(recipe: Recipe, tmp_path: Path) -> Sweep:
    """Its winner is a finalist's repeat, whose best result is not its last."""
    dataset, directory = load(recipe), tmp_path / "sweeps" / "one"
    directory.mkdir(parents=True)
    worker, study = LastWorker(Assignment(recipe, trial_data(dataset, recipe), directory)), new_study(directory, recipe)
    number = ask(study)
    study.record(number, result(27, 0.5))
    study.finish(number, 27)
    study.note("finalists", {"trials": [number], "seeds": [SEED]})
    repeats = study.finalists()
    repeat = study.repeat(number, SEED, into=repeats)
    assert repeat.hyperparameters is not None
    for one in TrialRun(worker, repeat.number, repeat.hyperparameters, SEED).results():
        told = result_of(one)
        repeats.record(repeat.number, Result(**{**told, "objective": 0.1 if told["windows_seen"] == 9 else 0.9}))
    record = repeats.finish(repeat.number, 27)
    study.note("winner", write_winner(worker, worker.assignment, record, dataset.panel))
    return Sweep(study, worker, record, dataset)


def weights(folder: Path) -> bytes:
    """Of a model."""
    return (folder / "model.safetensors").read_bytes()


def test_train_repeats_a_refit(sweep: Sweep, tmp_path: Path) -> None:
    """To the last bit; both say that nothing has measured it, and `winner/` stays what it was."""
    directory = sweep.worker.assignment.directory
    before = weights(directory / "winner")
    noted = sweep.refit()
    made, recipe = load_model(directory / "refitted"), load_recipe(directory / "refitted" / "recipe.yaml")
    assert (noted["refit"], noted["refit_sha256"]) == (UNVERIFIED, made.revision)
    assert made.provenance is not None
    assert (made.provenance.validation_score, made.provenance.unverified) == (None, UNVERIFIED)
    assert (made.provenance.trial, made.provenance.seed, made.provenance.windows_seen) == (0, SEED, 9)
    assert (directory / "refitted/recipe.yaml").read_text().startswith(f"# {UNVERIFIED}\n")
    assert (recipe.finalists.refit, recipe.finalists.top, recipe.seed, recipe.budget.stop_at) == (True, 0, SEED, 9)
    assert weights(directory / "winner") == before != weights(directory / "refitted")
    assert not load_recipe(directory / "winner" / "recipe.yaml").finalists.refit
    assert not (directory / ".refit").exists()
    trained = train_recipe(recipe, tmp_path / "again")
    assert (trained.score, trained.windows_seen) == (None, 9)
    assert weights(tmp_path / "again") == weights(directory / "refitted")
    again = load_model(tmp_path / "again").provenance
    assert again is not None
    assert again.unverified == UNVERIFIED


def test_a_killed_refit_goes_on(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its last checkpoint, to the same weights; when it was only not noted, nothing is trained."""
    directory, real = sweep.worker.assignment.directory, vars(trial)["validate"]
    scored = []

    def killed(*arguments: Any) -> Any:
        scored.append(arguments)
        if len(scored) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as kill:
        kill.setattr(trial, "validate", killed)
        with pytest.raises(KeyboardInterrupt):
            sweep.refit()
    assert "refit" not in sweep.study.attribute("winner")
    assert not (directory / "refitted").exists()
    shutil.copytree(directory, tmp_path / "unbroken", ignore=shutil.ignore_patterns(".refit", "refitted"))
    sweep.worker.refit(sweep.record, tmp_path / "weights")
    log = (directory / "logs/finalists/0.log").read_text()
    assert log.count("goes on from 3 windows") == 1
    with monkeypatch.context() as idle:
        idle.setattr(trial, "validate", None)
        sweep.refit()
    unbroken = LastWorker(replace(sweep.worker.assignment, directory=tmp_path / "unbroken"))
    unbroken.refit(sweep.record, tmp_path / "other")
    assert weights(directory / "refitted") == weights(tmp_path / "weights") == weights(tmp_path / "other")


def test_a_winner_is_refitted_once(sweep: Sweep) -> None:
    """Another winner is refitted anew: naming it drops what was noted of the last. Checkpoints go, if late."""
    noted, left = sweep.refit(), sweep.worker.assignment.directory / ".refit"
    left.mkdir()  # a driver was killed between the note and this
    assert sweep.refit(worker=object()) == noted
    assert not left.exists()
    sweep.study.note("winner", {key: value for key, value in noted.items() if not key.startswith("refit")})
    assert sweep.refit() == noted


def test_the_worker_ends_as_a_trial_s_would(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its node is given up: its process ends, so that the driver has another go on."""

    def go(_: int) -> None:
        raise ToldToGo

    def leave(code: int) -> None:
        raise SystemExit(f"left with {code}")

    monkeypatch.setattr("os._exit", leave)
    monkeypatch.setattr(TrialRun, "results", lambda _: map(go, [0]))
    with pytest.raises(SystemExit, match="left with 1"):
        sweep.worker.refit(sweep.record, tmp_path / "weights")


def test_it_trains_on_validation_up_to_the_test(sweep: Sweep, tmp_path: Path) -> None:
    """Other values there make other weights, which they do not for the winner; the panel ends before the test."""
    assignment = sweep.worker.assignment
    both = with_validation(assignment.data)
    assert (both.train_end, both.panel) == (sweep.dataset.split.test_start, assignment.data.panel)
    other = replace(assignment, data=with_another_validation(assignment.data), directory=tmp_path / "other")
    whole = replace(sweep.record, results=sweep.record.results[-1:])  # of nine windows none may lie there
    made: list[tuple[bytes, float]] = []
    for one in (assignment, other):
        LastWorker(one).refit(whole, tmp_path / str(len(made)))
        *_, last = TrialRun(Worker(replace(one, checkpoints=str(tmp_path / f"c{len(made)}"))), 1, POINT).results()
        made.append((weights(tmp_path / str(len(made))), last["metrics"]["train_loss"]))
    assert made[0][0] != made[1][0]
    assert made[0][1] == made[1][1]


def with_another_validation(data: TrialData) -> TrialData:
    """The same with other targets in the validation segment."""
    [series] = data.panel.series
    target = series.target.copy()
    target[data.train_end :] = np.flip(target[data.train_end :])
    panel: Panel = replace(data.panel, series=(replace(series, target=target),))
    return replace(data, panel=panel)


def test_a_recipe_without_it_has_none(sweep: Sweep) -> None:
    """The default."""
    plain = sweep.worker.assignment.recipe.model_copy(update={"finalists": Finalists(top=1, seeds=1)})
    refit(sweep.study, replace(sweep.worker.assignment, recipe=plain), object(), sweep.dataset.panel)  # type: ignore[arg-type]  # no worker is asked
    assert "refit" not in sweep.study.attribute("winner")


def test_the_winner_itself_challenges(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a refit is wanted: neither an average nor a blend can be trained once more."""
    assignment, directory = sweep.worker.assignment, sweep.worker.assignment.directory
    sweep.study.note("zero_shot", sweep.worker.zero_shot())
    monkeypatch.setattr("chronotune.challenger.challenger_of", lambda _: "best + zero-shot")
    found = []
    for wanted in (True, False):
        parts = {"evaluation": {"trees": False, "blends": True}, "finalists": {"top": 1, "seeds": 1, "refit": wanted}}
        recipe = small_recipe(assignment.recipe.model.weights, **parts)
        found.append(choose(directory, sweep.study.read(), replace(assignment, recipe=recipe), sweep.worker).challenger)
    assert found == ["best", "best + zero-shot"]


def refitted_sweep(directory: Path) -> Path:
    """A finished sweep that ships, with a refit of its winner; no weights that could be loaded."""
    judged_sweep(directory, "ship the challenger")
    study = Study.reopen(directory)
    recipe = small_recipe(finalists=Finalists(top=0, refit=True))
    study.note("recipe", recipe.model_dump(mode="json"))

    class Weights:
        def refit(self, record: TrialRecord, folder: Path) -> Any:
            (folder / "model.safetensors").write_bytes(b"refitted")
            return {}

    dataset = load(recipe)
    assignment = Assignment(recipe, trial_data(dataset, recipe), directory)
    refit(study, assignment, Weights(), dataset.panel)
    return directory


def test_export_writes_the_refit(tmp_path: Path) -> None:
    """With the verdict on the winner and the mark beside it; the winner itself only when asked for."""
    sweep = refitted_sweep(tmp_path / "one")
    for unrefitted, content in ((False, b"refitted"), (True, b"weights")):
        to = export_winner(sweep, tmp_path / f"mine-{unrefitted}", unrefitted=unrefitted)
        came = load_model(to).provenance
        assert came is not None
        assert came.verdict == "ship the challenger: so they say"
        assert (weights(to), came.unverified) == (content, None if unrefitted else UNVERIFIED)
        assert load_recipe(to / "recipe.yaml").finalists.refit is not unrefitted
        about = Entry("model", to.name, to / "preset.yaml").summary  # what `ls` shows
        assert about.endswith("; ship the challenger: so they say" if unrefitted else f"; {UNVERIFIED}")
        assert ("ship" in about) is unrefitted


def test_what_is_not_refitted_yet_is_not_exported(tmp_path: Path) -> None:
    """A sweep that was cut off before; nor is a refit of an earlier winner."""
    sweep = refitted_sweep(tmp_path / "one")
    study = Study.reopen(sweep)
    winner = study.attribute("winner")
    study.note("winner", {**winner, "refit_sha256": "of another"})
    with pytest.raises(InputError, match=r"refitted/ holds other weights"):
        export_winner(sweep, tmp_path / "mine")
    (sweep / "refitted").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"refitted/ is gone.*--unrefitted"):
        export_winner(sweep, tmp_path / "mine")
    (tmp_path / "elsewhere").rename(sweep / "refitted")
    study.note("winner", {key: value for key, value in winner.items() if not key.startswith("refit")})
    with pytest.raises(InputError, match=r"refit is exported, but it is not done.*chronotune resume .*--unrefitted"):
        export_winner(sweep, tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert weights(export_winner(sweep, tmp_path / "mine", unrefitted=True)) == b"weights"


def test_it_is_not_compared_on_validation(tmp_path: Path) -> None:
    """Which it was trained on."""
    model = export_winner(refitted_sweep(tmp_path / "one"), tmp_path / "mine")
    with pytest.raises(InputError, match=f"{UNVERIFIED}; compare the sweep that it comes from"):
        compare([model, export_winner(tmp_path / "one", tmp_path / "judged", unrefitted=True)])


def test_its_sweep_counts_openings_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody measures an exported refit there."""
    sweep = refitted_sweep(tmp_path / "sweeps" / "one")
    monkeypatch.chdir(tmp_path)
    for unrefitted in (False, True):
        found = _sweep_of(load_model(export_winner(sweep, tmp_path / f"mine-{unrefitted}", unrefitted=unrefitted)))
        assert found is not None
        assert found.resolve() == sweep


def test_it_is_marked_wherever_it_is_shown(tmp_path: Path) -> None:
    """Below the leaderboard, in report.html, and on the runs in MLflow."""
    study = evaluated(tmp_path)
    console = Console(width=200, record=True, file=io.StringIO())
    winner = study.attribute("winner") | {"windows_seen": 27}
    study.note("winner", winner)
    for marked in (False, True):
        conclude(console, tmp_path, study.read())
        write_report(tmp_path)
        tags = runs_of(study.read(), tmp_path, driven=False)[-1].tags
        shown = console.export_text(), (tmp_path / "report.html").read_text(encoding="utf-8")
        assert [UNVERIFIED in one for one in shown] == [marked, marked]
        assert tags.get("chronotune.winner.refit") == (UNVERIFIED if marked else None)
        study.note("winner", {**winner, "refit": UNVERIFIED, "refit_sha256": "def"})
