"""A model evaluated by itself: on which windows, beside what, and what a sweep counts. Forecasts are made up."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import chronotune
from chronotune.config.load import dump, load_model
from chronotune.config.model import ModelPreset, Provenance, Serving
from chronotune.config.recipe import Recipe
from chronotune.contenders import Contender
from chronotune.data.panel import FloatArray, Panel, Window
from chronotune.data.prepare import load, trial_data
from chronotune.data.windows import actuals
from chronotune.errors import InputError
from chronotune.evaluation import target_of
from chronotune.metrics import EVALUATION_LEVELS
from chronotune.openings import count_beside
from chronotune.report import evaluation_table
from chronotune.scoring import Ruler
from chronotune.standalone import best_on_validation, evaluate_model, evaluation_of, thinned
from chronotune.study import Study, read
from sweep_parts import new_study, small_recipe


class Anybody:
    """A worker whose models are wrong by their context length, and by a tenth of that with covariates."""

    def __init__(self, _: Any) -> None:
        pass

    def predict(
        self, _: ModelPreset, panel: Panel, windows: Sequence[Window], context: int, covariates: Sequence[str]
    ) -> FloatArray:
        """The truth plus an error."""
        truth, error = actuals(panel, windows, 24), context * (0.1 if covariates else 1)
        noise = np.random.default_rng(context).normal(1, 0.1, truth.shape)
        return np.repeat((truth + error * noise)[:, None], len(EVALUATION_LEVELS), axis=1)


@pytest.fixture(autouse=True)
def nobody_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Forecasts are made up, in an empty folder."""
    monkeypatch.setattr("chronotune.standalone.Worker", Anybody)
    monkeypatch.chdir(tmp_path)


def tuned(folder: Path, recipe: Recipe, context: int = 50, revision: str = "a" * 64) -> Path:
    """A model as export writes it, without weights."""
    folder.mkdir(parents=True)
    fed = Serving(horizon=24, context_length=context, time="time", target="ghi", known_future=["etr"])
    told: dict[str, Any] = {"created": "2026-01-01T00:00:00Z", "base": "b", "recipe": "r", "windows_seen": 9}
    came = Provenance.model_validate({**told, "objective": "sql", "validation_score": 0.5, "chronotune": "0"})
    preset = ModelPreset(name=folder.name, weights=".", revision=revision, serving=fed, provenance=came)
    (folder / "preset.yaml").write_text(dump(preset))
    (folder / "recipe.yaml").write_text(dump(recipe))
    return folder


def test_a_model_is_evaluated_without_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its recipe's segments are those of other data: rows need none of them, and no tables are made."""
    monkeypatch.setattr(Ruler, "tables", None)
    recipe = small_recipe(evaluation={"trees": False, "segments": ["nowhere"]})
    evaluation = evaluate_model("tiny", recipe)
    assert [row["model"] for row in evaluation["rows"]] == ["seasonal naive (24)", "zero-shot", "zero-shot, bare"]
    assert (evaluation["windows"], evaluation["verdict"], evaluation["test_openings"]) == (73, None, None)


def test_windows_are_spread_evenly() -> None:
    """At most so many, the first and the last among them; their scores are those of these windows alone."""
    recipe = small_recipe()
    whole = Ruler.of_test(load(recipe), recipe)
    part = thinned(whole, 10)
    assert part.windows == tuple(whole.windows[row] for row in (0, 8, 16, 24, 32, 40, 48, 56, 64, 72))
    assert part.actual.shape == (10, 24)
    assert (part.actual[1] == whole.actual[8]).all()
    assert thinned(whole, None) is thinned(whole, 73) is whole
    assert thinned(whole, 1).windows == whole.windows[-1:]
    frame = chronotune.evaluate("tiny", recipe, max_windows=10)
    assert frame.height == 3
    assert evaluate_model("tiny", recipe, max_windows=10)["first_origin"] == "2023-10-20T00:00:00"


def test_a_blend_is_shown_with_its_members(tmp_path: Path) -> None:
    """A model by itself has inputs, a blend has weights, in the rows and below the table of the terminal."""
    model = tuned(tmp_path / "models" / "mine", small_recipe())
    members = [
        {"folder": ".", "weight": 0.75, "context_length": 50},
        {"folder": "members/zero-shot", "weight": 0.25, "context_length": 96},
    ]
    preset = ModelPreset.model_validate({**load_model(model).model_dump(), "weights": ".", "members": members})
    (model / "preset.yaml").write_text(dump(preset))
    evaluation = evaluate_model(model, None)
    assert evaluation["rows"][0]["members"] is None
    blend = evaluation["rows"][-1]
    assert (blend["model"], blend["context_length"], blend["covariates"]) == ("mine", None, "")
    assert blend["members"] == {"best": 0.75, "zero-shot": 0.25}
    page = Console(file=io.StringIO(), width=160)
    page.print(evaluation_table(evaluation, 160))
    assert "mine: 75% best, 25% zero-shot; weights from validation" in page.file.getvalue()  # type: ignore[attr-defined]
    assert chronotune.evaluate(model)["members"].to_list()[-1] == "75% best, 25% zero-shot"


def test_a_model_is_judged_beside_zero_shot(tmp_path: Path) -> None:
    """The recipe's model is fed what validation prefers: here covariates and the shorter context."""
    model = tuned(tmp_path / "models" / "mine", small_recipe(), context=50)
    evaluation = evaluate_model(model, None, against="zero-shot")
    [_, reference, challenger] = evaluation["rows"]
    assert (reference["model"], reference["context_length"], reference["covariates"]) == ("zero-shot", 50, "all")
    assert challenger["model"] == "mine"
    verdict = evaluation["verdict"]
    assert verdict["gain"] == pytest.approx(0.0)
    assert verdict["decision"] == "keep zero-shot"
    assert "keep zero-shot, mine is not shown to be better" in verdict["sentence"]


def test_two_models_are_judged(tmp_path: Path) -> None:
    """The better of two tuned ones, and a bare one in the better of its ways."""
    recipe = small_recipe()
    better, worse = tuned(tmp_path / "better", recipe, 40), tuned(tmp_path / "worse", recipe, 80, "b" * 64)
    verdict = evaluate_model(better, None, against=worse)["verdict"]
    assert (verdict["challenger"], verdict["zero_shot"]) == ("better", "worse")
    assert verdict["decision"] == "ship the challenger"
    assert verdict["gain"] == pytest.approx(0.5, abs=0.05)
    bare = evaluate_model("tiny", recipe, against=worse)
    assert [row["covariates"] for row in bare["rows"][1:]] == ["etr", "all"]
    with pytest.raises(InputError, match="--against: must be another model than better"):
        evaluate_model(better, None, against=better)


def test_a_model_is_not_judged_on_what_it_knows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A test segment that begins before the model's own is refused, on either side; alone it is scored with a warning.

    A later one, and another target of the same data, are sound.
    """
    recipe, early = small_recipe(), small_recipe(split={"test": 0.6, "validation_origins": 3})
    model = tuned(tmp_path / "mine", recipe)
    for challenger, other in ((model, "zero-shot"), ("tiny", model)):
        with pytest.raises(InputError, match="mine: test windows must be new to a model, but they begin at 2023-05-27"):
            evaluate_model(challenger, early, against=other)
    with pytest.raises(InputError, match="must be new"):
        evaluate_model(model, None, ["split.test=0.6"], against="zero-shot")
    assert not caplog.text
    assert evaluate_model(model, early)["verdict"] is None
    assert "its scores are too good" in caplog.text
    caplog.clear()
    late = small_recipe(split={"test": 0.1, "validation_origins": 3})
    aside = small_recipe(data={**recipe.data.model_dump(), "target": "etr", "known_future": []})
    for sound, one in ((late, model), (early, tuned(tmp_path / "etr", aside))):
        assert evaluate_model("tiny", sound, against=one)["verdict"]
    assert not caplog.text


CHOSEN = {"number": 0, "challenger": "best"}


def begun(directory: Path, recipe: Recipe) -> Study:
    """The study of a sweep on the recipe's data."""
    study = new_study(directory, recipe)
    study.note("identity", {"data": load(recipe).fingerprint[:16]})
    return study


def test_a_sweep_counts_who_looks(tmp_path: Path) -> None:
    """Its winner in its folder or exported elsewhere, on its own data; not on others, and no other model."""
    recipe = small_recipe()
    sweep = tmp_path / "sweeps" / "one"
    tuned(sweep / "winner", recipe)
    begun(sweep, recipe)
    with pytest.raises(InputError, match="when it has chosen what to export"):
        evaluate_model(sweep / "winner", None)
    assert "test_openings" not in read(sweep).attributes
    Study.reopen(sweep).note("winner", CHOSEN)
    exported = tuned(tmp_path / "models" / "mine", recipe)
    assert evaluate_model(sweep / "winner", None)["test_openings"] == 1
    evaluation = evaluate_model(exported, None, max_windows=20, against="zero-shot")
    assert evaluation["test_openings"] == 2
    assert "test segment opened 2 times" in evaluation["verdict"]["sentence"]
    others = small_recipe(data={**recipe.data.model_dump(), "past_only": ["temperature", "humidity"]})
    assert evaluate_model(exported, others)["test_openings"] is None
    assert evaluate_model(tuned(tmp_path / "other", recipe, revision="c" * 64), None)["test_openings"] is None
    again = evaluate_model("tiny", others, against=exported)
    assert (again["test_openings"], again["test_openings_here"]) == (None, 5)  # the same target, whoever looks
    assert "test segment opened 5 times in all here" in again["verdict"]["sentence"]
    assert len(read(sweep).attributes["test_openings"]) == 2


def test_where_nothing_can_be_noted_no_number_is_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is counted, and this opening; what cannot be read is not told."""
    recipe = small_recipe()
    dataset = load(recipe)
    assert count_beside(tmp_path / "sweeps", target_of(dataset), "one", ["1", "2"]) == 2

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refused)
    evaluation = evaluate_model("tiny", recipe, against=tuned(tmp_path / "mine", recipe))
    assert evaluation["test_openings_here"] == 3
    monkeypatch.setattr(Path, "iterdir", refused)
    evaluation = evaluate_model("tiny", recipe, against=tmp_path / "mine")
    assert (evaluation["test_openings"], evaluation["test_openings_here"]) == (None, None)
    assert "opened" not in evaluation["verdict"]["sentence"]


def test_a_score_that_is_no_number_wins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it comes first; when all are none, the first stays."""
    recipe = small_recipe()
    data = trial_data(load(recipe), recipe)
    ways = [Contender(str(context), recipe.model, context, (), "none") for context in (24, 96, 48)]

    def chosen(*broken: int) -> str:
        def predict(preset: ModelPreset, panel: Panel, windows: Sequence[Window], context: int, _: Any) -> FloatArray:
            return Anybody(None).predict(preset, panel, windows, context, ()) + (np.nan if context in broken else 0)

        return best_on_validation(ways, data, recipe, predict).name

    assert (chosen(), chosen(24), chosen(24, 48), chosen(24, 48, 96)) == ("24", "48", "96", "24")


def test_a_sweep_counts_who_compares_with_its_winner(tmp_path: Path) -> None:
    """Named behind --against, too; beside two sweeps' winners the verdict tells the larger number of openings."""
    recipe = small_recipe()
    for name, revision, before in (("one", "a", ["once", "twice"]), ("two", "b", [])):
        tuned(tmp_path / "sweeps" / name / "winner", recipe, revision=revision * 64)
        study = begun(tmp_path / "sweeps" / name, recipe)
        study.note("winner", CHOSEN)
        study.note("test_openings", before)
    one, two = (tuned(tmp_path / "models" / name, recipe, revision=name * 64) for name in ("a", "b"))
    assert evaluate_model("tiny", recipe, against=two)["test_openings"] == 1
    evaluation = evaluate_model(two, None, against=one)
    assert "test segment opened 3 times" in evaluation["verdict"]["sentence"]
    assert [len(read(tmp_path / "sweeps" / name).attributes["test_openings"]) for name in ("one", "two")] == [3, 2]


def test_a_broken_preset_of_another_sweep_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is told, and the model is evaluated, and counted in its own sweep."""
    recipe = small_recipe()
    for name in ("broken", "mine"):
        tuned(tmp_path / "sweeps" / name / "winner", recipe)
        begun(tmp_path / "sweeps" / name, recipe).note("winner", CHOSEN)
    (tmp_path / "sweeps" / "broken" / "winner" / "preset.yaml").write_text("name: [")
    assert evaluate_model(tuned(tmp_path / "models" / "mine", recipe), None)["test_openings"] == 1
    assert "broken" in caplog.text


def test_a_sweep_is_evaluated_on_its_own_recipe(tmp_path: Path) -> None:
    """Another recipe, an override, fewer windows or another opponent are refused, not ignored."""
    new_study(tmp_path)
    for arguments in (("quickstart", ()), (None, ("horizon=4",))):
        with pytest.raises(InputError, match="own recipe"):
            evaluation_of(tmp_path, *arguments)
    for how in ({"max_windows": 3}, {"against": "tiny"}):
        with pytest.raises(InputError, match="own recipe and all test windows"):
            evaluation_of(tmp_path, **how)
