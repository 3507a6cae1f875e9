"""A sweep goes on only with what it began with: whatever would make its scores another's is refused by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import polars as pl
import pytest

from chronotune import sweep
from chronotune.config.load import dump_recipe
from chronotune.config.recipe import Recipe
from chronotune.data.prepare import load, trial_data
from chronotune.data.sources import solar
from chronotune.errors import InputError
from chronotune.study import Study
from sweep_parts import small_recipe


class LetInError(Exception):
    """A resume has come as far as the cluster."""


def _let_in(*_: Any) -> NoReturn:
    raise LetInError


SPACE: dict[str, Any] = {
    **small_recipe().search_space.model_dump(exclude={"name"}),
    "covariates": {"type": "choice", "values": ["none", "weather"]},
}


def _recipe(directory: Path, data: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    """A recipe on the file beside a sweep's folder, with a covariate set of its own."""
    roles = {"time": "time", "target": "ghi", "past_only": ["temperature"], "known_future": ["etr"], "seasons": [24]}
    sets = {"covariate_sets": {"weather": ["temperature"]}}
    place = {"source": "file", "path": str(directory.parent / "solar.parquet")}
    return small_recipe(**{"data": {**place, **roles, **sets, **(data or {})}, "search_space": SPACE, **changes})


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep's folder as its first driver begins it; the next has no model and no cluster."""
    monkeypatch.setattr(sweep, "locate", lambda _: None)
    monkeypatch.setattr(sweep, "connected", _let_in)
    solar().head(3000).write_parquet(tmp_path / "solar.parquet")
    (directory := tmp_path / "one").mkdir()
    recipe = _recipe(directory)
    dataset = load(recipe)
    Study.create(directory, "one", sweep._attributes(recipe, dataset, trial_data(dataset, recipe)))
    return directory


def _resume(directory: Path, **changes: Any) -> None:
    (directory / "recipe.yaml").write_text(dump_recipe(_recipe(directory, **changes)))
    sweep.resume_sweep(directory)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {"past_only": ["temperature", "humidity"]}}, r"data was \w+, is \w+"),
        ({"data": {"seasons": [12]}}, r"data\.seasons was \[24\], is \[12\]"),
        ({"horizon": 12}, "horizon was 24, is 12"),
        ({"objective": "mae"}, "objective was sql, is mae"),
        ({"split": {"validation_origins": 4}}, r"split\.validation_origins was 3, is 4"),
        ({"model": {"name": "small", "weights": "other"}}, "model was small nowhere, is small other"),
        (
            {"model": {"name": "small", "weights": "nowhere", "revision": "ab12"}},
            "model was small nowhere, is small ab12",
        ),
        ({"budget": {"trials": 4, "windows": 54}}, r"budget\.windows was 27, is 54"),
        ({"early_stopping": {"grace": 9}}, r"early_stopping\.grace was 3, is 9"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"search_space": {**SPACE, "windows": 4}}, r"search space was \w+, is \w+"),
        (
            {"data": {"covariate_sets": {"weather": ["etr"]}}},
            r"data\.covariate_sets\.weather was \['temperature'\], is \['etr'\]",
        ),
    ],
    ids=[
        *(
            "data",
            "season",
            "horizon",
            "objective",
            "validation",
            "model",
            "revision",
            "budget",
            "rungs",
            "seed",
            "search space",
        ),
        "a covariate set of the same name",
    ],
)
def test_what_a_sweep_began_with_is_refused_when_it_has_changed(
    begun: Path, changes: dict[str, Any], told: str
) -> None:
    """By its name, and nothing else is named."""
    with pytest.raises(InputError, match=rf"only with what it began with, but (?!.*;){told}\. Restore that"):
        _resume(begun, **changes)


def test_one_other_value_in_the_file_is_other_data(begun: Path) -> None:
    """Also where no trial sees it, in the test segment."""
    last = pl.int_range(pl.len()) == pl.len() - 1
    frame = solar().head(3000).with_columns(ghi=pl.when(last).then(pl.col("ghi") + 1).otherwise(pl.col("ghi")))
    frame.write_parquet(begun.parent / "solar.parquet")
    with pytest.raises(InputError, match=r"but data was \w+, is \w+\. Restore that"):
        _resume(begun)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cluster": {"name": "local", "max_concurrent": 1}},
        {"budget": {"trials": 4, "windows": 27, "stuck_minutes": 5, "keep_checkpoints": 3}},
        {"data": {"covariate_sets": {"weather": ["temperature"], "unsearched": ["etr"]}}},
    ],
    ids=["nothing", "cluster", "what is kept", "a set that no trial takes"],
)
def test_what_may_change_is_let_in(begun: Path, changes: dict[str, Any]) -> None:
    """It decides nothing of what is tried and what wins."""
    with pytest.raises(LetInError):
        _resume(begun, **changes)


def test_a_recipe_of_before_a_key_existed_is_let_in(begun: Path) -> None:
    """A newer version knows more keys than the study holds; their defaults are what the sweep had all along."""
    study = Study.reopen(begun)
    recipe = study.attribute("recipe")
    del recipe["finalists"]["refit"]
    study.note("recipe", recipe)
    with pytest.raises(LetInError):
        _resume(begun)
