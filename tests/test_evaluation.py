"""The evaluation's numbers, without a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from chronotune import evaluation, sweep
from chronotune.config.load import dump
from chronotune.config.model import ModelPreset
from chronotune.config.recipe import Recipe
from chronotune.contenders import BEST, ZERO_SHOT, Contender
from chronotune.data.panel import FloatArray, Panel, Window
from chronotune.data.prepare import load, prepare, trial_data
from chronotune.data.windows import actuals
from chronotune.errors import InputError
from chronotune.evaluation import _score, evaluate_again, evaluate_sweep, opened
from chronotune.identity import identity
from chronotune.metrics import EVALUATION_LEVELS
from chronotune.openings import Openings
from chronotune.results import as_dict, remove, sweeps
from chronotune.scoring import Ruler
from chronotune.study import Study, read
from sweep_parts import ask, new_study, result, small_recipe

DATA = {"source": "file", "path": "p.csv", "time": "time", "target": "load", "id": "site", "seasons": [24]}


def _recipe() -> Recipe:
    space: dict[str, Any] = {"learning_rate": 1e-4, "windows": 4, "context_length": 48}
    return small_recipe(data=DATA, search_space=space)


def _frame() -> pl.DataFrame:
    """Twenty days: one series that is 0 in the last five, and one that begins there."""
    hours = pl.DataFrame({"step": range(480)}).with_columns(
        time=pl.datetime(2024, 1, 1) + pl.duration(hours="step"), load=(pl.col("step") % 24 % 7).cast(pl.Float64)
    )
    stops = hours.with_columns(load=pl.when(pl.col("step") < 360).then("load").otherwise(0.0), site=pl.lit("stops"))
    begins = hours.filter(pl.col("step") >= 360).with_columns(load=pl.col("load") * 1000, site=pl.lit("begins"))
    return pl.concat([stops, begins]).drop("step")


def test_series_without_a_past_and_numbers_without_a_meaning() -> None:
    """A series that training does not know is in no test window; a metric of nothing is null, as JSON wants it."""
    recipe = _recipe()
    dataset = prepare(_frame(), recipe)
    evaluation, tables = _score([], dataset, Ruler.of_test(dataset, recipe), lambda *_: None)  # type: ignore[arg-type]  # no contender
    assert evaluation["verdict"] is None
    assert [row["segment"] for row in tables["series"]] == ["stops"]
    assert evaluation["windows"] == len(dataset.split.test_origins)
    [row] = evaluation["rows"]
    assert row["wql"] is None
    assert row["mae"] == 0.0
    json.dumps([evaluation, tables], allow_nan=False)


def _contender(name: str, error: int) -> Contender:
    """A model that is wrong by `error`, which it finds in its context length."""
    return Contender(name, ModelPreset(name="m", weights="none", max_context_length=512), error, (), "none")


def _wrong_by(_: ModelPreset, panel: Panel, windows: Sequence[Window], error: int, __: Sequence[str]) -> FloatArray:
    truth = actuals(panel, windows, 24)
    noise = np.random.default_rng(error).normal(1, 0.1, truth.shape)
    return np.repeat((truth + error * noise)[:, None], len(EVALUATION_LEVELS), axis=1)


@pytest.mark.parametrize("objective", ["sql", "wql", "mase", "mae", "rmse"])
def test_the_pair_of_validation_gets_a_verdict(objective: Any) -> None:
    """Whatever the objective, its gain is that of the table, and what is clearly better is shipped."""
    recipe = small_recipe(objective=objective)
    pair = [_contender(ZERO_SHOT, 10), _contender("zero-shot, same inputs", 1), _contender(BEST, 9)]
    dataset = load(recipe)
    ruler = Ruler.of_test(dataset, recipe)
    evaluation, tables = _score(pair, dataset, ruler, _wrong_by, Openings(1))
    scores = {row["model"]: row[objective] for row in evaluation["rows"]}
    verdict = evaluation["verdict"]
    assert verdict["gain"] == pytest.approx(1 - scores[BEST] / scores[ZERO_SHOT])
    assert verdict["gain"] == pytest.approx(0.1, abs=0.02)
    assert (verdict["decision"], verdict["days"], verdict["unit"]) == ("ship the challenger", 73, "days")
    assert verdict["by_series"] is None
    assert len([row for row in tables["hour"] if row["model"] == BEST]) == 24
    worse, nothing = _score(
        [_contender(ZERO_SHOT, 9), _contender(BEST, 10)], dataset, ruler, _wrong_by, Openings(2), tabled=False
    )
    assert nothing == {}
    assert worse["verdict"]["decision"] == "keep zero-shot"
    assert "opened 2 times" in worse["verdict"]["sentence"]


def test_a_panel_gets_its_series_counted_and_few_days_no_verdict(tmp_path: Path) -> None:
    """Four test days of two series, the errors also told apart by a column without a role."""
    frame = pl.concat([_frame().filter(site="stops").with_columns(site=pl.lit(name)) for name in "ab"])
    path = tmp_path / "p.csv"
    frame.with_columns(shift=pl.when(pl.col("time").dt.hour() < 8).then(pl.lit("night"))).write_csv(path)
    space: dict[str, Any] = {"learning_rate": 1e-4, "windows": 4, "context_length": 48}
    data = {**DATA, "path": str(path)}
    recipe = small_recipe(data=data, search_space=space, evaluation={"trees": True, "segments": ["shift"]})
    dataset = load(recipe)
    pair = [_contender(ZERO_SHOT, 4), _contender(BEST, 2)]
    evaluation, tables = _score(pair, dataset, Ruler.of_test(dataset, recipe), _wrong_by)
    assert evaluation["verdict"]["decision"] == "not enough test windows"
    assert (evaluation["verdict"]["days"], evaluation["verdict"]["by_series"]["series"]) == (4, 2)
    best = [row for row in tables["shift"] if row["model"] == BEST]
    assert [(row["segment"], row["observed"]) for row in best] == [("night", 4 * 2 * 8)]
    rows = {row["model"]: row for row in evaluation["rows"]}
    assert rows["boosted trees"]["context_length"] is None
    assert 0 < rows["boosted trees"]["sql"] < rows["seasonal naive (24)"]["sql"] + 1


def _with_a_winner(directory: Path, recipe: Recipe, sha256: str = "a" * 64) -> Study:
    """A sweep's study whose one trial has won and lies in `winner/`, not yet evaluated."""
    directory.mkdir()
    study = new_study(directory, recipe)
    study.note("zero_shot", [{"context_length": 48, "covariates": "none", "metrics": {"sql": 0.9}}])
    number = ask(study)
    study.record(number, result(27, 0.5))
    study.finish(number, 27)
    _crown(directory, study, sha256)
    return study


def _crown(directory: Path, study: Study, sha256: str) -> None:
    (directory / "winner").mkdir(exist_ok=True)
    (directory / "winner" / "model.safetensors").touch()
    preset = ModelPreset(name="won", weights=".", revision=sha256, max_context_length=128)
    (directory / "winner" / "preset.yaml").write_text(dump(preset))
    study.note("winner", {"number": 0, "windows_seen": 27, "score": 0.5, "sha256": sha256, "bytes": 0})


def test_a_wrong_column_opens_nothing(tmp_path: Path) -> None:
    """It is found before the opening of the test segment is counted, and before that when the data are loaded."""
    right = small_recipe()
    wrong = small_recipe(evaluation={"trees": False, "segments": ["nowhere"]})
    study = _with_a_winner(tmp_path / "one", right)
    with pytest.raises(InputError, match=r"evaluation\.segments\[0\].*'nowhere'"):
        evaluate_sweep(tmp_path / "one", study, wrong, load(right), _wrong_by)
    assert study.attribute("test_openings") is None
    with pytest.raises(InputError, match=r"evaluation\.segments\[0\].*'nowhere'"):
        load(wrong)


def test_the_evaluation_is_shown_with_its_winner_only(tmp_path: Path) -> None:
    """A new winner that was not evaluated yet does not stand beside the old one's verdict."""
    recipe, directory = small_recipe(), tmp_path / "one"
    study = _with_a_winner(directory, recipe)
    evaluation = evaluate_sweep(directory, study, recipe, load(recipe), _wrong_by)
    assert evaluation["sha256"] == "a" * 64
    assert json.loads((directory / "evaluation.json").read_text()) == evaluation
    assert as_dict(read(directory))["evaluation"] == evaluation
    decision = evaluation["verdict"]["decision"]
    assert sweeps(tmp_path)[0]["about"].endswith(decision)
    _crown(directory, study, "b" * 64)
    assert as_dict(read(directory))["evaluation"] is None
    assert decision not in sweeps(tmp_path)[0]["about"]
    old = {key: value for key, value in evaluation.items() if key != "sha256"}
    study.note("evaluation", old)  # of a sweep from before there was the key
    assert as_dict(read(directory))["evaluation"] == old


class Anybody:
    """A worker whose models are wrong as `_wrong_by` says."""

    def __init__(self, *_: Any) -> None:
        self.predict = _wrong_by


def test_other_data_open_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that lost its last rows would put the test segment into what the winner was trained on."""
    monkeypatch.setattr(evaluation, "Worker", Anybody)
    path, directory = tmp_path / "p.csv", tmp_path / "one"
    whole = pl.concat([_frame().filter(site="stops").with_columns(site=pl.lit(name)) for name in "ab"])
    whole.write_csv(path)
    space: dict[str, Any] = {"learning_rate": 1e-4, "windows": 4, "context_length": 48, "covariates": "none"}
    recipe = small_recipe(data={**DATA, "path": str(path)}, search_space=space)
    dataset, study = load(recipe), _with_a_winner(directory, recipe)
    study.note("identity", identity(recipe, dataset, trial_data(dataset, recipe)))
    study.note("ended", "2026-01-01")
    whole.filter(pl.col("time") < pl.datetime(2024, 1, 20)).write_csv(path)
    with pytest.raises(InputError, match=r"data was .*, is .*Restore that"):
        evaluate_again(directory)
    assert study.attribute("test_openings") is None
    whole.write_csv(path)
    assert evaluate_again(directory)["test_openings"] == 1


def test_nothing_is_opened_before_the_challenger_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver was killed in between: what is exported may become another."""
    monkeypatch.setattr(evaluation, "Worker", Anybody)
    recipe, directory = small_recipe(), tmp_path / "one"
    dataset, study = load(recipe), _with_a_winner(directory, recipe)
    study.note("identity", identity(recipe, dataset, trial_data(dataset, recipe)))
    with pytest.raises(InputError, match=r"has chosen what to export.*resume"):
        evaluate_again(directory)
    assert study.attribute("test_openings") is None
    study.note("winner", {**study.attribute("winner"), "challenger": BEST})
    assert evaluate_again(directory)["test_openings"] == 1


def test_the_same_weights_are_not_evaluated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An extension without a new winner opens nothing; another winner, or one of before, is evaluated."""
    monkeypatch.setattr(sweep, "RemoteWorker", Anybody)
    monkeypatch.setattr(sweep, "threads_of_one_node", lambda _: 1)
    recipe, directory = small_recipe(), tmp_path / "one"
    dataset, study = load(recipe), _with_a_winner(directory, recipe)
    driver = sweep._Sweep(directory, recipe, dataset, trial_data(dataset, recipe), study, None)
    for sha256, openings in (("a" * 64, 1), ("a" * 64, 1), ("b" * 64, 2), ("b" * 64, 2)):
        _crown(directory, study, sha256)
        driver._conclude()
        assert len(study.attribute("test_openings")) == openings
        assert study.attribute("evaluation")["sha256"] == sha256
    study.note("evaluation", {"rows": []})
    driver._conclude()
    assert len(study.attribute("test_openings")) == 3


def test_openings_are_counted_beside_the_sweeps(tmp_path: Path) -> None:
    """Of the same target, whatever covariates and horizon; a sweep that is removed has looked all the same."""
    data = {**small_recipe().data.model_dump(), "past_only": ["humidity"]}
    one, two = small_recipe(), small_recipe(data=data, split={"test": 0.1, "validation_origins": 3})
    etr = small_recipe(data={**data, "target": "etr", "known_future": []})
    seen = []
    for name, recipe in (("one", one), ("one", one), ("two", two), ("etr", etr), ("three", one)):
        if name == "three":
            remove(tmp_path / "one")
        if not (tmp_path / name).exists():
            (tmp_path / name).mkdir()
            new_study(tmp_path / name, recipe).note("created", name)
        seen.append(opened(tmp_path / name, Study.reopen(tmp_path / name), load(recipe)))
    assert seen == [Openings(1, 1), Openings(2, 2), Openings(1, 3), Openings(1, 1), Openings(1, 4)]


def test_the_baseline_does_not_depend_on_the_recipe_s_seed() -> None:
    """That of a finalist's export is the repeat's, and its trees are still those of the sweep."""
    space: dict[str, Any] = {"learning_rate": 1e-4, "windows": 4, "context_length": 48}
    rows = []
    for seed in (0, 5):
        recipe = small_recipe(data=DATA, search_space=space, evaluation={"trees": True}, seed=seed)
        dataset = prepare(_frame().filter(site="stops"), recipe)
        rows.append(_score([], dataset, Ruler.of_test(dataset, recipe), _wrong_by)[0]["rows"])
    assert rows[0] == rows[1]
