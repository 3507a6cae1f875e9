"""Sweeps and models side by side: only what the same ruler measured, and the reasons for the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chronotune.cli import app
from chronotune.compare import compare
from chronotune.config.load import dump, load_model
from chronotune.config.recipe import Recipe
from chronotune.data.prepare import load, trial_data
from chronotune.errors import InputError
from chronotune.identity import ruler
from chronotune.study import Study, read
from sweep_parts import ask, new_study, result, small_recipe
from test_standalone import tuned


def sweep(directory: Path, score: float, recipe: Recipe | None = None, *, last: str = "z", mae: float = 9.0) -> Path:
    """A finished sweep of one trial with this score; its evaluation ended at the origin `last`."""
    recipe = recipe or small_recipe()
    directory.mkdir()
    study = new_study(directory, recipe)
    study.note("identity", {"ruler": ruler(recipe, trial_data(load(recipe), recipe))})
    study.note("zero_shot", [{"context_length": 48, "covariates": "none", "metrics": {"sql": 1.0, "mae": 1.0}}])
    number = ask(study)
    study.record(number, result(27, score))
    study.finish(number, 27)
    study.note("winner", {"number": 0, "windows_seen": 27, "score": score, "sha256": "a"})
    study.note("evaluation", evaluation(score, last, mae))
    return directory


def evaluation(score: float, last: str, mae: float) -> dict[str, Any]:
    """One with a verdict."""
    rows = [{"model": "seasonal naive (24)", "sql": 2.0, "mae": mae}]
    rows += [{"model": m, "sql": s, "mae": s} for m, s in (("zero-shot", 1.1), ("best", score + 0.1))]
    verdict = {"challenger": "best", "zero_shot": "zero-shot", "gain": 0.2, "low": 0.1, "high": 0.3}
    verdict |= {"decision": "ship the challenger"}
    told = {"windows": 73, "horizon": 24, "first_origin": "a", "last_origin": last, "test_openings": 1}
    return {**told, "rows": rows, "verdict": verdict, "sha256": "a"}


def test_the_same_ruler_makes_a_table(tmp_path: Path) -> None:
    """Best first, an exported model among them, whatever its covariates; JSON has every number."""
    other = small_recipe(data={**small_recipe().data.model_dump(), "past_only": []}, search_space=_space())
    one, two = sweep(tmp_path / "one", 0.8), sweep(tmp_path / "two", 0.6, other)
    model = tuned(tmp_path / "mine", small_recipe())
    comparison = json.loads(json.dumps(compare([one, two, model]), allow_nan=False))
    assert comparison["apart"] == []
    [group] = comparison["groups"]
    assert [Path(row["name"]).name for row in group["rows"]] == ["mine", "two", "one"]
    best = group["rows"][1]
    assert (best["score"], best["zero_shot"], best["gain"]) == (0.6, 1.0, pytest.approx(0.4))
    assert (best["test"], best["test_zero_shot"], best["verdict"]) == (pytest.approx(0.7), 1.1, "ship the challenger")
    assert group["rows"][0]["test"] is None


def test_what_went_out_is_what_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One training's own score for a plain winner, as its export has it; an average's or blend's, marked as fitted."""
    plain, blend, stale = (sweep(tmp_path / name, 0.8) for name in ("plain", "blend", "stale"))
    scores = {"best": 0.81, "best + zero-shot": 0.7}
    for one, tuned_weights, challenger in (
        (plain, "a", "best"),
        (blend, "a", "best + zero-shot"),
        (stale, "of another winner", "best"),
    ):
        study = Study.reopen(one)
        study.note("choice", {"tuned": tuned_weights, "scores": scores})
        study.note("winner", {**study.attribute("winner"), "tuned": "a", "challenger": challenger, "mean": 0.9})
    model = tuned(tmp_path / "mine", small_recipe())
    rows = compare([plain, blend, stale, model])["groups"][0]["rows"]
    found = {Path(row["name"]).name: (row["score"], row["fitted"]) for row in rows}
    assert found == {"plain": (0.81, False), "blend": (0.7, True), "stale": (0.8, False), "mine": (0.5, False)}
    preset = load_model(model)
    assert preset.provenance is not None
    made = preset.provenance.model_copy(update={"averaged": ["trial 1", "trial 2"]})
    (model / "preset.yaml").write_text(dump(preset.model_copy(update={"weights": ".", "provenance": made})))
    monkeypatch.chdir(tmp_path)  # short names
    printed = CliRunner().invoke(app, ["compare", "blend", "./mine"]).output
    assert "0.7000 (fitted)" in printed
    assert "0.5000 (fitted)" in printed


def _space() -> dict[str, Any]:
    return {"learning_rate": 1e-4, "windows": 4, "context_length": 48}


def test_another_ruler_is_told_apart(tmp_path: Path) -> None:
    """With the reason: other windows or objective in words, other scales as such, no winner, no tuning, no folder."""
    one, two = sweep(tmp_path / "one", 0.8), sweep(tmp_path / "two", 0.6)
    fewer = sweep(tmp_path / "fewer", 0.6, small_recipe(split={"validation_origins": 2}))
    scaled = sweep(tmp_path / "scaled", 0.6, small_recipe(data={**small_recipe().data.model_dump(), "seasons": [168]}))
    begun = tmp_path / "begun"
    begun.mkdir()
    new_study(begun)
    comparison = compare([one, fewer, two, scaled, begun, "tiny", tmp_path / "nowhere"])
    assert [len(group["rows"]) for group in comparison["groups"]] == [2]
    reasons = {Path(one["name"]).name: one["why"] for one in comparison["apart"]}
    assert reasons["fewer"] == f"measured on 2 windows of 24 steps by sql, but {one} on 3 windows of 24 steps by sql"
    assert reasons["scaled"].endswith("but on other ones or by other seasons: another file or split")
    assert "no winner yet" in reasons["begun"]
    assert "not tuned by chronotune" in reasons["tiny"]
    assert "there is no file" in reasons["nowhere"]
    with pytest.raises(InputError, match=r"no two compare: .*fewer: measured on 2 windows"):
        compare([one, fewer])


def test_every_ruler_with_two_has_its_table(tmp_path: Path) -> None:
    """Two groups, and the reason why the second stands apart from the first."""
    few = small_recipe(split={"validation_origins": 2})
    names = {"a": None, "b": few, "c": None, "d": few}
    comparison = compare([sweep(tmp_path / name, 0.5, recipe) for name, recipe in names.items()])
    assert [len(group["rows"]) for group in comparison["groups"]] == [2, 2]
    assert [Path(one["name"]).name for one in comparison["apart"]] == ["b", "d"]


@pytest.mark.parametrize("change", [{"last": "y"}, {"mae": 8.0}])
def test_other_test_windows_have_no_place_in_the_table(tmp_path: Path, change: dict[str, Any]) -> None:
    """By their origins, or by what the seasonal naive forecast scores there: other values are other data."""
    one, two = sweep(tmp_path / "one", 0.8), sweep(tmp_path / "two", 0.6, **change)
    comparison = compare([one, two])
    assert [row["test"] for row in comparison["groups"][0]["rows"]] == [None, pytest.approx(0.9)]
    assert "other test windows" in comparison["apart"][0]["why"]


def test_it_is_printed(tmp_path: Path) -> None:
    """Names, scores, intervals, verdicts, and the reasons below."""
    one, two = sweep(tmp_path / "one", 0.8), sweep(tmp_path / "two", 0.6)
    Study.reopen(one).note("evaluation", {**evaluation(0.8, "z", 9.0), "test_openings_here": 5})
    printed = CliRunner().invoke(app, ["compare", str(one), str(two), "tiny"], env={"COLUMNS": "200"}).output
    for words in ("measured on 3 windows of 24 steps by sql", "+40.0%", "+10.0% to +30.0%", "tiny: it was not tuned"):
        assert words in printed
    told = f"test segment: {two} opened once by this sweep; {one} opened once by this sweep, 5 times in all"
    assert told in " ".join(printed.split())
    rows = compare([one, two])["groups"][0]["rows"]
    assert [(row["test_openings"], row["test_openings_here"]) for row in rows] == [(1, None), (1, 5)]
    assert "test_openings" not in read(one).attributes  # nothing was opened
