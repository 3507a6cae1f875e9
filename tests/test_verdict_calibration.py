"""Is the verdict right as often as it says? On a year of real daily losses, with their autocorrelation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from chronotune.config.load import load_recipe
from chronotune.data.prepare import load, training_scales
from chronotune.data.windows import actuals, windows_at
from chronotune.forecaster import load_model, predict_windows
from chronotune.metrics import additive_losses
from chronotune.significance import block_length, compare, draws
from chronotune.verdict import Decision, Verdict

Losses = tuple[NDArray[np.float64], NDArray[np.float64]]

SEGMENTS, DAYS, BLOCK = 500, 73, 14
"""Test segments made of a year: as many days as the shipped recipes have, in stretches of two weeks."""


def daily_losses(name: str, *overrides: str) -> Losses:
    """SQL of every day of a year, a day ahead, of the embedded model with two context lengths."""
    recipe = load_recipe(name, overrides)
    dataset, model = load(recipe), load_model(recipe.model)
    panel, horizon = dataset.panel, recipe.horizon
    windows = windows_at(panel, range(14 * horizon, panel.end - horizon + 1, horizon), horizon)
    truth, scales = actuals(panel, windows, horizon), training_scales(panel, dataset.split, recipe)
    losses = []
    for context in (7 * horizon, 10 * horizon):
        got = predict_windows(model, panel, windows, context_length=context, horizon=horizon, covariates=())
        losses.append(additive_losses(got, truth, scales[[0] * len(windows)], "sql").astype(np.float64))
    return losses[0], losses[1]


@pytest.fixture(scope="module")
def solar() -> Losses:
    """The embedded data."""
    return daily_losses("quickstart")


@pytest.fixture(scope="module")
def steel(steel_csv: Path) -> Losses:
    """The steel plant, whose losses remember the day before."""
    return daily_losses("steel", f"data.path={steel_csv}")


def with_gain(losses: Losses, gain: float) -> Losses:
    """The same days, the challenger's losses scaled so that over the whole year its gain is this."""
    challenger, reference = losses
    return challenger * (1 - gain) * reference.sum() / challenger.sum(), reference


def verdicts(losses: Losses, days: int = DAYS) -> list[Verdict]:
    """Of test segments drawn from the year."""
    random, year = np.random.default_rng(7), len(losses[0])
    result = []
    for _ in range(SEGMENTS):
        starts = random.integers(0, year, -(-days // BLOCK))
        chosen = ((starts[:, None] + np.arange(BLOCK)) % year).ravel()[:days]
        comparison = compare(losses[0][chosen], losses[1][chosen], resamplings=2000)
        result.append(Verdict("best", "zero-shot", "sql", comparison))
    return result


def share(found: list[Verdict], decision: Decision) -> float:
    """Of the verdicts that are this one."""
    return float(np.mean([verdict.decision == decision for verdict in found]))


@pytest.mark.parametrize("name", ["solar", "steel"])
def test_the_verdict_is_calibrated(name: str, request: pytest.FixtureRequest) -> None:
    """Without a difference, at most 5% are shipped; with 1.5 times the stated smallest gain, at least 80%."""
    losses: Losses = request.getfixturevalue(name)
    assert len(losses[0]) > 300
    equal = verdicts(with_gain(losses, 0))
    assert share(equal, "ship the challenger") <= 0.05
    stated = float(np.mean([verdict.comparison.smallest for verdict in equal]))
    better = verdicts(with_gain(losses, 1.5 * stated))
    assert share(better, "ship the challenger") >= 0.80


def test_too_few_days_give_no_verdict(solar: Losses) -> None:
    """However large the gain is."""
    assert share(verdicts(with_gain(solar, 0.5), days=8), "not enough test windows") == 1.0


def test_single_days_would_promise_too_much(steel: Losses) -> None:
    """The steel losses are autocorrelated, so resampled single days spread less: why there are blocks."""
    challenger, reference = with_gain(steel, 0)
    differences = reference - challenger
    length = block_length(differences)
    assert length > 1
    drawn = {block: draws(np.random.default_rng(0), 2000, len(reference), block) for block in (1, length)}
    assert (drawn[length] @ differences).std() > 1.05 * (drawn[1] @ differences).std()
