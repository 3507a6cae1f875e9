"""The challenger: chosen on validation alone, exported with its members, and the same when it is loaded.

Three small trainings without Ray serve all tests of this module.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file

from chronotune import challenger, serving, trees
from chronotune.again import LastWorker
from chronotune.averaging import average
from chronotune.challenger import (
    CLEARLY,
    NOTICEABLY,
    WITH_ZERO_SHOT,
    challenger_of,
    choose,
    ingredients,
    settle,
    winner_record,
)
from chronotune.config.load import load_model, load_recipe
from chronotune.config.recipe import Recipe
from chronotune.contenders import AVERAGE, BEST, ZERO_SHOT, tuned_preset
from chronotune.data.prepare import Dataset, load, prepare, trial_data
from chronotune.data.sources import read as read_data
from chronotune.errors import WORKER_LOST, InputError
from chronotune.evaluation import evaluate_sweep
from chronotune.export import export_winner, write_winner
from chronotune.scoring import Ruler
from chronotune.search import result_of
from chronotune.standalone import evaluate_model
from chronotune.stores import Folder
from chronotune.study import Result, Study
from chronotune.trial import Assignment, TrialRun, Worker
from engine_parts import small_model
from sweep_parts import ask, new_study, result, small_recipe


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trees.SETTINGS, "max_iter", 3)
    monkeypatch.setattr(trees, "PAIRS", 2000)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The small one, with everything that an evaluation can hold but the LSTM, and the small model as a folder."""
    folder = tmp_path_factory.mktemp("weights")
    small_model().save_pretrained(folder)
    return small_recipe(folder, evaluation={"trees": True, "blends": True}, budget={"trials": 3, "windows": 27})


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep's folder with three complete trials and the winner of them, before its challenger is chosen."""
    directory = tmp_path_factory.mktemp("sweeps") / "trained"
    directory.mkdir()
    dataset = load(recipe)
    worker = Worker(Assignment(recipe, trial_data(dataset, recipe), directory))
    study = new_study(directory, recipe)
    study.note("zero_shot", worker.zero_shot())
    for _ in range(3):
        number = ask(study)
        point = study.trial(number).hyperparameters
        assert point is not None
        for report in TrialRun(worker, number, point).results():
            study.record(number, Result(**result_of(report)))
        study.finish(number, 27)
    best = study.read().winner
    assert best is not None
    study.note("winner", write_winner(LastWorker(worker.assignment), worker.assignment, best, dataset.panel))
    return directory


@dataclass(frozen=True)
class Sweep:
    """A copy of the trained sweep, with what its driver has."""

    directory: Path
    study: Study
    dataset: Dataset
    worker: Worker

    def settle(self) -> dict[str, Any]:
        """Choose, and give what the study notes of it."""
        settle(self.directory, self.study, self.worker.assignment, self.worker, self.dataset.panel)
        noted: dict[str, Any] = self.study.attribute("choice")
        return noted

    def evaluate(self) -> dict[str, dict[str, Any]]:
        """The rows by model."""
        recipe = self.worker.assignment.recipe
        evaluation = evaluate_sweep(self.directory, self.study, recipe, self.dataset, self.worker.predict)
        return {row["model"]: row for row in evaluation["rows"]}


def sweep_of(trained: Path, to: Path, recipe: Recipe, dataset: Dataset | None = None) -> Sweep:
    """A driver that goes on with a copy of the folder."""
    shutil.copytree(trained, to)
    dataset = dataset or load(recipe)
    worker = Worker(Assignment(recipe, trial_data(dataset, recipe), to))
    return Sweep(to, Study.reopen(to), dataset, worker)


@pytest.fixture
def sweep(trained: Path, tmp_path: Path, recipe: Recipe) -> Sweep:
    """A copy, so that each test has its own."""
    return sweep_of(trained, tmp_path / "sweep", recipe)


def test_what_costs_more_must_be_better() -> None:
    """An average by half a percent than the winner, a second model by one than both; trees never challenge."""
    average = 1 - 1.1 * NOTICEABLY
    scores = {BEST: 1.0, AVERAGE: average, "best + trees": 0.2, "stack of all": 0.1}
    assert challenger_of(scores) == AVERAGE
    assert challenger_of({**scores, WITH_ZERO_SHOT: average * (1 - 1.1 * CLEARLY)}) == WITH_ZERO_SHOT
    assert challenger_of({**scores, WITH_ZERO_SHOT: 1 - 1.1 * CLEARLY}) == AVERAGE
    assert challenger_of({**scores, AVERAGE: 1 - 0.9 * NOTICEABLY, WITH_ZERO_SHOT: 1 - 1.1 * CLEARLY}) == BEST
    assert challenger_of({BEST: 1.0, WITH_ZERO_SHOT: 1 - 1.1 * CLEARLY}) == WITH_ZERO_SHOT
    assert challenger_of({BEST: 1.0}) == BEST


def test_the_winner_is_the_try_that_came_through(tmp_path: Path) -> None:
    """A repeat whose worker was lost was trained again, by the next driver, with the same trial and seed."""
    study = new_study(tmp_path)
    number = ask(study)
    study.record(number, result(27, 0.5))
    study.finish(number, 27)
    study.note("finalists", {"trials": [number], "seeds": [5]})
    repeats = study.finalists()
    lost = study.repeat(number, 5, into=repeats)
    repeats.record(lost.number, result(3, 0.4))
    repeats.fail(lost.number, WORKER_LOST)
    again = study.repeat(number, 5, into=repeats)
    repeats.record(again.number, result(27, 0.3))
    repeats.finish(again.number, 27)
    study.note("winner", {"number": number, "seed": 5})
    assert winner_record(study.read()).number == again.number


def test_an_average_is_the_mean_of_the_weights(tmp_path: Path) -> None:
    """Tensor by tensor, and the library loads it."""
    folders = [tmp_path / name for name in ("one", "two")]
    for seed, folder in enumerate(folders):
        small_model(seed=seed).save_pretrained(folder)
    (mean := tmp_path / "mean").mkdir()
    average(folders, mean)
    one, two, both = (load_file(folder / "model.safetensors") for folder in (*folders, mean))
    assert both.keys() == one.keys()
    for name in one:
        np.testing.assert_allclose(both[name], (one[name].astype(float) + two[name]) / 2, rtol=1e-6, atol=1e-9)
    from chronos.chronos2.model import Chronos2Model

    loaded = Chronos2Model.from_pretrained(mean).state_dict()
    assert all(np.array_equal(loaded[name].numpy(), both[name]) for name in both)


def test_nothing_of_the_test_segment_decides(trained: Path, tmp_path: Path, recipe: Recipe) -> None:
    """Every value of it changed: the same challenger, scores, weights and average, to the last digit."""
    frame = read_data(recipe.data)
    real = prepare(frame, recipe)
    behind = pl.int_range(pl.len()) >= real.split.test_start
    columns = [name for name, kind in frame.schema.items() if kind.is_numeric()]
    changed = {name: pl.when(behind).then(500 - 3 * pl.col(name)).otherwise(pl.col(name)) for name in columns}
    other = frame.with_columns(**changed)
    fake = prepare(other, recipe)
    assert fake.fingerprint != real.fingerprint
    found = []
    for name, dataset in (("real", real), ("fake", fake)):
        one = sweep_of(trained, tmp_path / name, recipe, dataset)
        found.append((one.settle(), one.study.attribute("winner")))
        assert one.study.attribute("test_openings") is None
    assert found[0] == found[1]
    assert {BEST, ZERO_SHOT, "boosted trees", "stack of all"} <= found[0][0]["scores"].keys()


def test_the_winner_alone(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays as it was written; every contender has its row, and its gain beside zero-shot as validation liked it."""
    monkeypatch.setattr(challenger, "challenger_of", lambda _: BEST)
    before = (sweep.directory / "winner/preset.yaml").read_text()
    choice = sweep.settle()
    assert choice["challenger"] == BEST == sweep.study.attribute("winner")["challenger"]
    assert (sweep.directory / "winner/preset.yaml").read_text() == before
    rows = sweep.evaluate()
    trial = sweep.study.read().winner
    assert trial is not None
    assert trial.best is not None
    assert choice["scores"][BEST] == rows[BEST]["validation"] == pytest.approx(trial.best.objective, rel=1e-6)
    assert rows[ZERO_SHOT]["gain"] is None
    for name in rows.keys() - {ZERO_SHOT}:
        assert rows[name]["gain"] == pytest.approx(1 - rows[name]["sql"] / rows[ZERO_SHOT]["sql"], abs=1e-6)
        assert rows[name]["gain_low"] <= rows[name]["gain"] <= rows[name]["gain_high"]
    for name in choice["blends"]:
        assert sum(rows[name]["members"].values()) == pytest.approx(1)
        members = [choice["scores"][member] for member in rows[name]["members"]]
        assert choice["scores"][name] <= min(members) + 1e-9
    evaluation = json.loads((sweep.directory / "evaluation.json").read_text())
    assert evaluation["verdict"]["challenger"] == evaluation["challenger"] == BEST


def crowned(sweep: Sweep, name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Settled with this challenger, whatever validation says, and evaluated."""
    monkeypatch.setattr(challenger, "challenger_of", lambda _: name)
    sweep.settle()
    assert sweep.study.attribute("winner")["challenger"] == name
    rows = sweep.evaluate()
    assert sweep.study.attribute("evaluation")["verdict"]["challenger"] == name
    return rows


def test_a_blend_is_exported_with_its_members(sweep: Sweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The export forecasts what the evaluation scored; each member is a model of its own, and its hash is checked."""
    monkeypatch.setattr(challenger, "weigh", lambda forecasts, _: (0.25, 0.75, *[0.0] * (len(forecasts) - 2)))
    rows = crowned(sweep, WITH_ZERO_SHOT, monkeypatch)
    folder = export_winner(sweep.directory, tmp_path / "mine", force=True)
    shutil.rmtree(sweep.directory)
    preset = load_model(folder)
    assert [(member.folder, member.weight) for member in preset.members] == [(".", 0.25), ("members/zero-shot", 0.75)]
    assert load_model(folder / "members/zero-shot").members == []
    recipe = load_recipe(folder / "recipe.yaml")
    row = evaluate_model(folder, recipe)["rows"][-1]
    for metric in ("sql", "mae", "coverage90"):
        assert row[metric] == pytest.approx(rows[WITH_ZERO_SHOT][metric], rel=1e-6)
    assert rows[WITH_ZERO_SHOT]["sql"] not in (rows[BEST]["sql"], rows[ZERO_SHOT]["sql"])
    got = serving.forecast(folder, latest())
    assert got.height == recipe.horizon
    assert np.isfinite(got.select("0.1", "forecast", "0.9").to_numpy()).all()
    (folder / "members/zero-shot/model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(Exception, match="must have the SHA-256"):
        serving.forecast(folder, latest())


def latest() -> pl.DataFrame:
    """The last weeks of the solar data, and a day of what is known of the future."""
    frame = read_data(small_recipe().data)
    return frame.tail(400).with_columns(ghi=pl.when(pl.int_range(pl.len()) < 376).then("ghi"))


def test_an_average_takes_the_winner_s_place(sweep: Sweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its preset says what was averaged; the tuned winner stays beside it, for the table.

    A kill in between is made good. Every mean is taken here, whether it is better or not.
    """
    others = ingredients(Folder(sweep.directory / "checkpoints"), sweep.study.read())
    assert [record.number for record in others] != []
    monkeypatch.setattr(challenger, "ingredients", lambda *_: others)
    monkeypatch.setattr(Ruler, "score", falling(Ruler.score))
    tuned = sweep.study.attribute("winner")["sha256"]
    note = Study.note
    monkeypatch.setattr(Study, "note", lambda self, key, value: note(self, key, value) if key == "choice" else stop())
    with pytest.raises(KeyboardInterrupt):
        crowned(sweep, AVERAGE, monkeypatch)
    assert load_model(sweep.directory / "winner").revision != tuned
    monkeypatch.undo()
    monkeypatch.setitem(trees.SETTINGS, "max_iter", 3)
    monkeypatch.setattr(challenger, "choose", None)  # is noted, and not done again
    sweep.settle()
    winner = sweep.study.attribute("winner")
    assert (winner["tuned"], winner["challenger"]) == (tuned, AVERAGE)
    assert tuned_preset(sweep.directory, sweep.study.read()).revision == tuned
    preset = load_model(sweep.directory / "winner")
    assert preset.revision == winner["sha256"] != tuned
    assert preset.provenance is not None
    assert len(preset.provenance.averaged) == 1 + len(others)
    rows = sweep.evaluate()
    assert rows[AVERAGE]["sql"] != rows[BEST]["sql"]
    row = evaluate_model(export_winner(sweep.directory, tmp_path / "mine", force=True), None)["rows"][-1]
    assert row["sql"] == pytest.approx(rows[AVERAGE]["sql"], rel=1e-6)


@pytest.mark.parametrize("full", ["export", "predict", "appearing"])
def test_a_full_disk_costs_the_average_only(sweep: Sweep, monkeypatch: pytest.MonkeyPatch, full: str) -> None:
    """Whatever could not be written: there is a choice. What a killed driver left is gone."""
    (sweep.directory / ".averaging/mean1").mkdir(parents=True)
    monkeypatch.setattr(Ruler, "score", falling(Ruler.score))

    def fail(*arguments: Any, **_: Any) -> Any:
        if full == "predict" and str(arguments[0].weights).find(".averaging") < 0:
            return predict(*arguments)
        raise SafetensorError("No space left") if full == "export" else OSError(28, "No space left")

    predict = sweep.worker.predict
    monkeypatch.setattr(challenger if full == "appearing" else sweep.worker, full, fail)
    choice = sweep.settle()
    assert (choice["challenger"], choice["averaged"]) == (BEST, [])
    assert not [path for path in sweep.directory.glob(".*") if path.name != ".lease"]


def stop() -> None:
    """As a kill at this place would."""
    raise KeyboardInterrupt


def falling(score: Any) -> Any:
    """The same scores, but each lower than all before."""
    calls = iter(range(1000))
    return lambda *arguments: {name: value - 100 * next(calls) for name, value in score(*arguments).items()}


def test_a_choice_is_made_once(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to the winner's weights: the same ones have the same challenger, others are compared again."""
    first = sweep.settle()
    with monkeypatch.context() as patched:
        patched.setattr(challenger, "choose", None)
        assert sweep.settle() == first
    sweep.study.note("winner", {**sweep.study.attribute("winner"), "tuned": "another"})
    sweep.study.note("winner", {k: v for k, v in sweep.study.attribute("winner").items() if k != "challenger"})
    with pytest.raises(InputError, match="must have the SHA-256 another"):
        sweep.settle()


def test_an_earlier_winner_s_average_is_not_looked_for(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a sweep that was extended has another winner, the average of the one before goes, and its note with it."""
    with monkeypatch.context() as patched:
        patched.setattr(Ruler, "score", falling(Ruler.score))  # every mean is better
        assert sweep.settle()["averaged"] != ()
    earlier = {**sweep.study.attribute("choice"), "tuned": "weights of an earlier winner"}
    best = sweep.study.read().winner
    assert best is not None
    asked = LastWorker(sweep.worker.assignment), sweep.worker.assignment, best, sweep.dataset.panel
    sweep.study.note("winner", write_winner(*asked))
    sweep.study.note("choice", earlier)
    assert sweep.settle()["tuned"] == sweep.study.attribute("winner")["tuned"]
    assert {BEST, ZERO_SHOT} <= sweep.evaluate().keys()


def test_blends_may_be_left_out(sweep: Sweep) -> None:
    """Then nothing is forecast before the test."""
    plain = sweep.worker.assignment.recipe.model_copy(
        update={"evaluation": sweep.worker.assignment.recipe.evaluation.model_copy(update={"blends": False})}
    )
    assignment = Assignment(plain, sweep.worker.assignment.data, sweep.directory)
    choice = choose(sweep.directory, sweep.study.read(), assignment, None)  # type: ignore[arg-type]  # no worker is asked
    assert (choice.challenger, choice.blends, choice.averaged) == (BEST, {}, ())
