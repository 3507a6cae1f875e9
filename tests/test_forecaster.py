"""Forecasts equal to the library's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from chronotune.data.panel import Panel, Window
from chronotune.errors import ChronotuneError
from chronotune.forecaster import predict_windows
from chronotune.metrics import EVALUATION_LEVELS, QUANTILES
from engine_parts import ALL, CONTEXT, HORIZON, KNOWN, PAST_ONLY, WINDOWS, small_model, small_panel


def by_the_library(
    model: Any, panel: Panel, windows: Sequence[Window], context_length: int, horizon: int, covariates: Sequence[str]
) -> np.ndarray[Any, Any]:
    """`Chronos2Pipeline.predict_quantiles` on whole histories as dictionaries, shape (windows, 9, horizon)."""
    from chronos import Chronos2Pipeline

    tasks = []
    for window in windows:
        series, origin = panel.series[window.series], window.origin
        rows = {name: series.covariates[panel.covariates.index(name)] for name in covariates}
        task: dict[str, Any] = {"target": series.target[:origin]}
        if rows:
            task["past_covariates"] = {name: row[:origin] for name, row in rows.items()}
        if known := {name: row[origin : origin + horizon] for name, row in rows.items() if name in panel.known_future}:
            task["future_covariates"] = known
        tasks.append(task)
    quantiles, _ = Chronos2Pipeline(model).predict_quantiles(
        tasks, prediction_length=horizon, quantile_levels=list(QUANTILES), context_length=context_length
    )
    return np.stack([q[0].T.numpy() for q in quantiles])


@pytest.mark.parametrize("covariates", [(), PAST_ONLY, KNOWN, ALL, ("heat", "holiday")], ids=str)
def test_equal_to_the_library(covariates: tuple[str, ...]) -> None:
    """The same quantiles as plain predict_quantiles: short histories, missing values, any kind of covariate."""
    model, panel = small_model(), small_panel()
    ours = predict_windows(model, panel, WINDOWS, context_length=CONTEXT, horizon=HORIZON, covariates=covariates)
    theirs = by_the_library(model, panel, WINDOWS, CONTEXT, HORIZON, covariates)
    assert ours.shape == (len(WINDOWS), 9, HORIZON)
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() < 1e-5


@pytest.mark.filterwarnings("error::UserWarning")
def test_horizons_beyond_the_model(recwarn: pytest.WarningsRecorder) -> None:
    """Longer than one forward pass: the library's own continuation, without its warning."""
    model, panel = small_model(max_output_patches=1), small_panel()
    arguments: dict[str, Any] = {"context_length": CONTEXT, "horizon": 40, "covariates": ALL}
    ours = predict_windows(model, panel, [Window(0, 300), Window(1, 180)], **arguments)
    recwarn.clear()
    with pytest.warns(UserWarning, match="keeping prediction length"):
        theirs = by_the_library(model, panel, [Window(0, 300), Window(1, 180)], CONTEXT, 40, ALL)
    assert np.abs(ours - theirs).max() < 1e-5


def test_windows_do_not_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window's forecast is the same alone, with others, and in batches of one window."""
    model, panel = small_model(), small_panel()
    arguments: dict[str, Any] = {"context_length": CONTEXT, "horizon": HORIZON, "covariates": ALL}
    together = predict_windows(model, panel, WINDOWS, **arguments)
    alone = np.concatenate([predict_windows(model, panel, [window], **arguments) for window in WINDOWS])
    monkeypatch.setattr("chronotune.forecaster._BATCH_TOKENS", 1)
    one_by_one = predict_windows(model, panel, WINDOWS, **arguments)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)


def test_the_future_is_not_read() -> None:
    """Targets and past-only covariates after the origin may be anything; known-future ones matter."""
    model, panel = small_model(), small_panel()
    arguments: dict[str, Any] = {"context_length": CONTEXT, "horizon": HORIZON, "covariates": ALL}
    before = predict_windows(model, panel, [Window(0, 300)], **arguments)
    panel.series[0].target[300:] = 1e6
    panel.series[0].covariates[:2, 300:] = -1e6
    np.testing.assert_array_equal(before, predict_windows(model, panel, [Window(0, 300)], **arguments))
    panel.series[0].covariates[2, 300:] += 3
    assert not np.array_equal(before, predict_windows(model, panel, [Window(0, 300)], **arguments))


@pytest.mark.parametrize("training", [True, False])
def test_leaves_mode_and_random_numbers_alone(training: bool) -> None:
    """Dropout is off while forecasting, and the caller's mode and generators are as before."""
    import torch

    model, panel = small_model(), small_panel()
    model.train(training)
    arguments: dict[str, Any] = {"context_length": CONTEXT, "horizon": HORIZON, "covariates": KNOWN}
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    first = predict_windows(model, panel, WINDOWS, **arguments)
    np.testing.assert_array_equal(first, predict_windows(model, panel, WINDOWS, **arguments))
    assert model.training is training
    assert torch.equal(torch_state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


def test_read_only_data_without_warnings(recwarn: pytest.WarningsRecorder) -> None:
    """Arrays shared by Ray cannot be written to."""
    panel = small_panel()
    for series in panel.series:
        series.target.flags.writeable = False
        series.covariates.flags.writeable = False
    for covariates in ((), ALL):
        predict_windows(small_model(), panel, WINDOWS, context_length=CONTEXT, horizon=HORIZON, covariates=covariates)
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]


def test_no_windows() -> None:
    """Nothing to forecast gives an empty array."""
    got = predict_windows(small_model(), small_panel(), [], context_length=8, horizon=5, covariates=())
    assert got.shape == (0, 9, 5)


def test_too_long_a_context_is_refused() -> None:
    """The library would cut it; we say so."""
    with pytest.raises(ChronotuneError, match=r"context_length must not exceed the 128 steps .* but is 129"):
        predict_windows(small_model(), small_panel(), WINDOWS, context_length=129, horizon=5, covariates=())


def test_other_levels_of_the_same_forecast() -> None:
    """The final evaluation asks for more of the model's own quantiles; those of the nine stay the same."""
    arguments: dict[str, Any] = {"context_length": CONTEXT, "horizon": HORIZON, "covariates": ALL}
    model = small_model()
    nine = predict_windows(model, small_panel(), WINDOWS, **arguments)
    more = predict_windows(model, small_panel(), WINDOWS, **arguments, levels=EVALUATION_LEVELS)
    assert more.shape == (len(WINDOWS), len(EVALUATION_LEVELS), HORIZON)
    np.testing.assert_array_equal(more[:, [EVALUATION_LEVELS.index(level) for level in QUANTILES]], nine)
