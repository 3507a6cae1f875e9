"""Blends by hand: their quantiles, and that validation's weights are those that a search of all would find."""

from __future__ import annotations

import numpy as np
import pytest

from chronotune.blending import ROUNDS, blend, composition, weigh
from chronotune.metrics import QUANTILES, additive_losses

SHAPE = (40, len(QUANTILES), 12)


def forecasts(error: float, seed: int) -> np.ndarray:
    """Of a truth of zeros: off by about `error` in each window, the quantiles one apart."""
    offsets = np.random.default_rng(seed).normal(0, error, (SHAPE[0], 1, 1))
    return np.broadcast_to(offsets + np.linspace(-1, 1, SHAPE[1])[:, None], SHAPE).copy()


def loss(values: np.ndarray) -> float:
    """SQL against zeros, but for a constant."""
    return float(additive_losses(values, np.zeros((SHAPE[0], SHAPE[2])), np.ones(SHAPE[0]), "sql").sum())


def test_the_mean_of_quantiles() -> None:
    """Level by level; sorted, where a member's quantiles cross; a forecast of weight 0 may be anything."""
    one, other = np.array([[[0.0], [2.0], [1.0]]]), np.array([[[4.0], [4.0], [8.0]]])
    assert blend([one, other], (0.75, 0.25)).ravel().tolist() == [1.0, 2.5, 2.75]
    assert blend([one, np.full_like(one, np.nan)], (1.0, 0.0)).ravel().tolist() == [0.0, 1.0, 2.0]


def test_two_equal_strangers_are_halved() -> None:
    """Errors that have nothing to do with each other cancel: the blend is clearly better than both."""
    pair = [forecasts(4, 1), forecasts(4, 2)]
    weights = weigh(pair, loss)
    assert weights[0] == pytest.approx(0.5, abs=0.2)
    assert loss(blend(pair, weights)) < 0.9 * min(map(loss, pair))


def test_the_weight_is_that_of_a_search_of_all() -> None:
    """Down to the step of the selection; the loss is convex in the weight."""
    pair = [forecasts(3, 3), forecasts(5, 4)]
    grid = np.linspace(0, 1, 101)
    lowest = min(grid, key=lambda weight: loss(blend(pair, (weight, 1 - weight))))
    assert weigh(pair, loss)[0] == pytest.approx(lowest, abs=2 / ROUNDS)


def test_a_stack_is_never_worse_than_its_best_and_leaves_the_useless_out() -> None:
    """Weights are not negative and make 1; one that is only worse, and one that is no forecast, get nothing."""
    members = [forecasts(3, 5), forecasts(3, 6), forecasts(80, 7), np.full(SHAPE, np.nan)]
    weights = weigh(members, loss)
    assert min(weights) >= 0
    assert sum(weights) == pytest.approx(1)
    assert weights[2:] == (0, 0)
    assert loss(blend(members, weights)) <= min(map(loss, members[:3]))


def test_a_copy_brings_nothing() -> None:
    """Of a forecast and itself the first is taken; one alone has all the weight."""
    one = forecasts(2, 8)
    assert weigh([one, one], loss) == (1, 0)
    assert weigh([one], loss) == (1,)


def test_in_words() -> None:
    """What the table says below."""
    assert composition({"best": 0.7, "zero-shot": 0.3}) == "70% best, 30% zero-shot"
