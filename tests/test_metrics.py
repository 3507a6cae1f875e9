"""The scores against numbers worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from chronotune.metrics import (
    EVALUATION_LEVELS,
    INTERVALS,
    QUANTILES,
    additive_losses,
    last_value_r2,
    score,
    seasonal_scale,
    without_nan,
)

NAN = float("nan")


def point(*windows: list[float]) -> np.ndarray:
    """A point forecast: all nine quantiles equal."""
    return np.repeat(np.array(windows)[:, None, :], 9, axis=1)


def test_point_forecast_by_hand() -> None:
    """Two windows of two steps with errors 1, -1, 2 and 0."""
    actual = np.array([[2.0, 1.0], [4.0, 1.0]])
    got = score(point([1.0, 2.0], [2.0, 1.0]), actual, np.array([1.0, 2.0]))
    assert got["mae"] == pytest.approx((1 + 1 + 2 + 0) / 4)
    assert got["rmse"] == pytest.approx(np.sqrt((1 + 1 + 4 + 0) / 4))
    assert got["mase"] == pytest.approx(((1 + 1) / 2 / 1 + (2 + 0) / 2 / 2) / 2)
    assert got["r2"] == pytest.approx(1 - 6 / 6)  # the mean is 2, squared deviations 0, 1, 4, 1
    assert got["mape"] == pytest.approx((1 / 2 + 1 / 1 + 2 / 4 + 0) / 4)
    assert got["coverage80"] == pytest.approx(1 / 4)


def test_quantile_scores_of_a_point_forecast_equal_its_absolute_error() -> None:
    """Averaged over levels symmetric about 0.5, twice the pinball loss of a point is its absolute error."""
    actual = np.array([[2.0, 1.0], [4.0, 1.0]])
    got = score(point([1.0, 2.0], [2.0, 1.0]), actual, np.array([1.0, 2.0]))
    assert got["sql"] == pytest.approx(got["mase"])
    assert got["wql"] == pytest.approx((1 + 1 + 2 + 0) / (2 + 1 + 4 + 1))


def test_the_scores_are_those_of_fev() -> None:
    """To 1e-9, on an example whose scores fev 0.10.0 computed (tools/fev_example.py)."""
    example = json.loads((Path(__file__).parent / "fev_example.json").read_text())
    scales = np.array([seasonal_scale(np.array(past), example["season"]) for past in example["past"]])
    got = score(np.array(example["quantiles"]), np.array(example["actual"]), scales)
    assert len(example["scores"]) == 7
    for name, theirs in example["scores"].items():
        assert got[name] == pytest.approx(theirs, rel=1e-9), name


def test_coverage_by_hand() -> None:
    """Quantiles 5, 10, 20, ... 95 as their own values: 10 is inside 80% and 90%, 7 inside 90%, 50 inside all."""
    forecast = np.array(EVALUATION_LEVELS)[None, :, None].repeat(4, axis=2) * 100
    got = score(forecast, np.array([[10.0, 7.0, 50.0, NAN]]), np.ones(1), EVALUATION_LEVELS)
    assert [got[f"coverage{percent}"] for percent in INTERVALS] == pytest.approx([1 / 3, 2 / 3, 1])


def test_levels_beyond_the_nine_change_no_score() -> None:
    """SQL and WQL average over the nine; only the coverage of more intervals is added."""
    rng = np.random.default_rng(0)
    forecast = np.sort(rng.normal(size=(4, len(EVALUATION_LEVELS), 6)), axis=1)
    actual, scales = rng.normal(size=(4, 6)), np.array([1.0, 2.0, 3.0, 4.0])
    more = score(forecast, actual, scales, EVALUATION_LEVELS)
    fewer = score(forecast[:, [EVALUATION_LEVELS.index(q) for q in QUANTILES]], actual, scales)
    assert more.keys() - fewer.keys() == {"coverage50", "coverage90"}
    assert {name: more[name] for name in fewer} == fewer


def test_wape_by_hand() -> None:
    """Errors 1 and 1 of 10 and 0, pooled."""
    assert score(point([9.0], [1.0]), np.array([[10.0], [0.0]]), np.ones(2))["wape"] == pytest.approx(2 / 10)


@pytest.mark.parametrize("objective", ["sql", "wql", "mase", "mae", "rmse"])
def test_sums_over_windows_have_the_ratio_of_the_scores(objective: str) -> None:
    """Also with missing steps and windows, and scales that differ."""
    rng = np.random.default_rng(1)
    actual, scales = rng.normal(size=(5, 4)), rng.uniform(1, 9, 5)
    actual[0, 2:], actual[3] = NAN, NAN
    one, other = (np.sort(rng.normal(0, spread, (5, 9, 4)), axis=1) for spread in (1, 2))
    sums = [additive_losses(forecast, actual, scales, objective) for forecast in (one, other)]
    assert sums[0][3] == 0.0
    ratio = sums[0].sum() / sums[1].sum()
    scores = [score(forecast, actual, scales)[objective] for forecast in (one, other)]
    assert ratio ** (0.5 if objective == "rmse" else 1) == pytest.approx(scores[0] / scores[1])


def test_quantile_forecast_by_hand() -> None:
    """One step with y = 5 and quantiles 1..9: 2 |5 - f| times q below and (1 - q) above."""
    forecast = np.arange(1.0, 10.0).reshape(1, 9, 1)
    below = sum(2 * (5 - f) * f / 10 for f in (1, 2, 3, 4))
    above = sum(2 * (f - 5) * (1 - f / 10) for f in (6, 7, 8, 9))
    got = score(forecast, np.array([[5.0]]), np.array([4.0]))
    assert got["sql"] == pytest.approx((below + above) / 9 / 4)
    assert got["wql"] == pytest.approx((below + above) / 9 / 5)
    assert (got["mae"], got["coverage80"]) == (0.0, 1.0)


def test_missing_actuals_do_not_count() -> None:
    """A score is the same as if the missing steps and windows were not there."""
    forecast = point([1.0, 2.0, 9.0], [3.0, 3.0, 3.0])
    actual = np.array([[2.0, 4.0, NAN], [NAN, NAN, NAN]])
    got = score(forecast, actual, np.array([2.0, 1.0]))
    assert got == pytest.approx(score(forecast[:1, :, :2], actual[:1, :2], np.array([2.0])))
    assert got["mase"] == pytest.approx((1 + 2) / 2 / 2)


def test_wql_is_pooled() -> None:
    """An idle window adds its loss, and does not divide by its own zero."""
    got = score(point([9.0], [1.0]), np.array([[10.0], [0.0]]), np.ones(2))
    assert got["wql"] == pytest.approx((1 + 1) / 10)
    assert got["mape"] == pytest.approx(0.1)


def test_non_finite_forecasts_are_not_hidden() -> None:
    """A NaN forecast of an observed step makes every error NaN."""
    got = score(point([NAN, 1.0]), np.array([[1.0, 2.0]]), np.ones(1))
    assert all(np.isnan(got[name]) for name in ("sql", "wql", "mase", "mae", "rmse", "r2", "mape", "wape"))


@pytest.mark.filterwarnings("error")
def test_nothing_observed_gives_nan_without_warnings() -> None:
    """No actual value at all: every metric is NaN."""
    assert all(np.isnan(list(score(point([1.0]), np.array([[NAN]]), np.ones(1)).values())))


def test_levels_are_symmetric() -> None:
    """Nine levels, the median in the middle."""
    assert len(QUANTILES) == 9
    assert QUANTILES[4] == 0.5


def test_seasonal_scale_by_hand() -> None:
    """Lag 2 differences of 1, 5, 2, 9, NaN, 4 are 1, 4 and, between 9 and 4, 5; those with the NaN do not count."""
    assert seasonal_scale(np.array([1.0, 5.0, 2.0, 9.0, NAN, 4.0]), 2) == pytest.approx((1 + 4 + 5) / 3)


@pytest.mark.parametrize(
    ("target", "season", "expected"),
    [
        ([1.0, 2.0, 1.0, 2.0], 2, 1.0),
        ([1.0, 3.0], 24, 2.0),
        ([4.0, 4.0, 4.0], 1, 4.0),
        ([0.0, 0.0], 1, 1.0),
        ([NAN, NAN], 1, 1.0),
        ([], 7, 1.0),
    ],
)
def test_seasonal_scale_falls_back(target: list[float], season: int, expected: float) -> None:
    """Where the seasonal difference is zero or undefined: lag 1, then the level, then 1."""
    assert seasonal_scale(np.array(target), season) == expected


def test_json_has_no_nan() -> None:
    """At any depth, infinities included; everything else stays."""
    assert without_nan({"a": [1.0, NAN, {"b": float("inf")}], "c": "x"}) == {"a": [1.0, None, {"b": None}], "c": "x"}
    assert without_nan({"gains": (NAN, 1.0)}) == {"gains": [None, 1.0]}


def test_last_value_r2_tells_order_from_shuffle() -> None:
    """A smooth series scores near 1, the same values shuffled near -1."""
    smooth = np.sin(np.arange(2000) / 30)
    shuffled = np.random.default_rng(0).permutation(smooth)
    assert last_value_r2(smooth) > 0.99
    assert last_value_r2(shuffled) == pytest.approx(-1, abs=0.15)


def test_last_value_r2_by_hand() -> None:
    """Of 1, 2, NaN, 4, 6, 5 the pairs are 1-2, 4-6 and 6-5: errors 1, 2, 1 about the mean 13/3."""
    spread = sum((y - 13 / 3) ** 2 for y in (2, 6, 5))
    assert last_value_r2(np.array([1.0, 2.0, NAN, 4.0, 6.0, 5.0])) == pytest.approx(1 - 6 / spread)
