"""Train one configuration alone, exactly as a trial of a sweep would."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chronotune.checkpoint import appearing
from chronotune.config.recipe import Recipe, without_segments
from chronotune.config.space import Fixed, Hyperparameters
from chronotune.data.prepare import load, trial_data, with_validation
from chronotune.errors import InputError
from chronotune.export import free_folder, refuse_bad_name, write_declarations
from chronotune.identity import trusting
from chronotune.records import BUDGET, OBJECTIVE
from chronotune.trial import Assignment, TrialRun, Worker


@dataclass(frozen=True)
class Trained:
    """A trained model."""

    folder: Path
    """Weights, `preset.yaml` and `recipe.yaml`."""
    windows_seen: int
    score: float | None
    """The recipe's objective on the validation origins, in original units; None: it was trained on them."""


def train_recipe(recipe: Recipe, to: str | Path) -> Trained:
    """Train a recipe whose space holds one point, up to `budget.stop_at`; with `finalists.refit` on validation too.

    On the same machine with the same thread count the score equals that of the trial which the recipe came from, to
    the last digit.

    Args:
        recipe: As `export` writes it.
        to: Where the model shall stand; when it exists, a time is added to its name.

    Raises:
        InputError: The last part of `to` is no name for a model, or the space leaves something to search.
    """
    refuse_bad_name(Path(to))
    point = only_point(recipe)
    if recipe.budget.stop_at is not None:  # which `export` wrote
        recipe = trusting(recipe)
    dataset = load(without_segments(recipe))
    to = free_folder(Path(to))
    with appearing(to, replace=False) as draft, _scratch(to) as scratch:
        data, refitted = trial_data(dataset, recipe), recipe.finalists.refit
        data = with_validation(data) if refitted else data
        run = TrialRun(Worker(Assignment(recipe, data, scratch)), 0, point)
        *_, last = run.results()
        windows, score = last[BUDGET], None if refitted else last[OBJECTIVE]
        run.export(windows, draft)
        write_declarations(
            draft,
            recipe,
            point,
            dataset.panel,
            name=to.name,
            windows_seen=windows,
            score=score,
            trial=None,
            course=last["attributes"],
            refitted=refitted,
        )
    return Trained(to, windows, score)


@contextmanager
def _scratch(to: Path) -> Iterator[Path]:
    """A hidden folder beside `to` for checkpoints, removed at the end: the system's may be small, or in memory."""
    with tempfile.TemporaryDirectory(prefix=f".{to.name}.", dir=to.absolute().parent) as folder:
        yield Path(folder)


def only_point(recipe: Recipe) -> Hyperparameters:
    """The one point of a space without ranges.

    Raises:
        InputError: Something is left to search; all such parameters are named.
    """
    chosen: dict[str, object] = {}
    searched = [name for name, parameter in recipe.search_space.parameters.items() if not isinstance(parameter, Fixed)]
    if searched:
        raise InputError(
            f"{recipe.name}: train takes one configuration, but the space still searches {', '.join(searched)}. "
            f"Use `chronotune run`, or fix each: --set search_space.{searched[0]}=VALUE"
        )
    for name, parameter in recipe.search_space.parameters.items():
        if parameter.applies(chosen) and isinstance(parameter, Fixed):
            chosen[name] = parameter.value
    return Hyperparameters.model_validate(chosen)
