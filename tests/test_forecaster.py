"""Forecasts equal to the library's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from chronotune import attention, forecaster
from chronotune.data.panel import Series, Window
from chronotune.errors import ChronotuneError, OutOfMemoryError
from chronotune.forecaster import predict_windows
from chronotune.metrics import EVALUATION_LEVELS, QUANTILES
from engine_parts import ALL, CONTEXT, HORIZON, KNOWN, PAST_ONLY, WINDOWS, by_the_library, small_model, small_panel

SHOWN: dict[str, Any] = {"context_length": CONTEXT, "horizon": HORIZON, "covariates": ALL}


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    """Whether the library is known is remembered for a process; not from one test to the next."""
    attention.is_known.cache_clear()
    yield
    attention.is_known.cache_clear()


def assert_equal(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> None:
    """Within a millionth of the largest value."""
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 1e-6 * np.abs(theirs).max()


def batches_seen(model: Any, most: int = 10**6, message: str = "DefaultCPUAllocator: not enough memory") -> list[Any]:
    """Shapes of the contexts that reach the model from now on; above `most` windows it fails with `message`."""
    forward, seen = model.forward, list[Any]()

    def run(**tensors: Any) -> Any:
        seen.append(tuple(tensors["context"].shape))
        if tensors["group_ids"].max() >= most:
            raise RuntimeError(message)
        return forward(**tensors)

    model.forward = run
    return seen


@pytest.mark.parametrize("covariates", [(), PAST_ONLY, KNOWN, ALL, ("heat", "holiday")], ids=str)
def test_equal_to_the_library(covariates: tuple[str, ...]) -> None:
    """The same quantiles as plain predict_quantiles: short histories, missing values, any kind of covariate."""
    model, panel = small_model(), small_panel()
    ours = predict_windows(model, panel, WINDOWS, context_length=CONTEXT, horizon=HORIZON, covariates=covariates)
    assert ours.shape == (len(WINDOWS), 9, HORIZON)
    assert ours.dtype == np.float32
    assert_equal(ours, by_the_library(model, panel, WINDOWS, CONTEXT, HORIZON, covariates))


@pytest.mark.parametrize("context_length", [1, 15, 16, 50, 100, 128])
@pytest.mark.parametrize("horizon", [1, 16, 64])
def test_any_length_of_past_and_future(context_length: int, horizon: int) -> None:
    """Around the bounds of patches; more of one series than of another; windows in any order."""
    model, panel = small_model(), small_panel()
    windows = [Window(0, origin) for origin in (130, 1, 15, 16, 17, 31, 33, 64, 65, 129)] + list(WINDOWS[::-1])
    ours = predict_windows(model, panel, windows, context_length=context_length, horizon=horizon, covariates=ALL)
    assert_equal(ours, by_the_library(model, panel, windows, context_length, horizon, ALL))


def test_missing_values() -> None:
    """Rows without any value in the past, gaps in covariates and in their future, and the end of the data."""
    model, panel = small_model(), small_panel()
    first = panel.series[0]
    target, covariates = first.target.copy(), first.covariates.copy()
    target[:100] = target[250:270] = np.nan
    covariates[1, :140] = covariates[2, 90:120] = covariates[3, 300:310] = np.nan
    panel = replace(panel, series=(replace(first, target=target, covariates=covariates), *panel.series[1:]))
    windows = [Window(0, origin) for origin in (100, 80, 110, 265, 300, 395)]
    ours = predict_windows(model, panel, windows, **SHOWN)
    assert np.isfinite(ours).all()
    assert_equal(ours, by_the_library(model, panel, windows, **SHOWN))


def test_a_panel_of_many_short_series() -> None:
    """Series of all lengths, two windows of each: a window's past is padded by what it has, not by the longest."""
    random, model = np.random.default_rng(1), small_model()
    series = tuple(
        Series(f"s{n}", 0, *(random.normal(size=shape).astype(np.float32) for shape in [(n + 20,), (4, n + 20)]))
        for n in range(1, 90)
    )
    panel = replace(small_panel(), series=series)
    windows = [Window(number, origin) for number in range(89) for origin in (number + 1, number // 2 + 1)]
    theirs = by_the_library(model, panel, windows, **SHOWN)
    seen = batches_seen(model)
    assert_equal(predict_windows(model, panel, windows, **SHOWN), theirs)
    assert [steps for _, steps in seen] == [16, 32, 64]
    assert sum(rows for rows, _ in seen) == 5 * len(windows)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_other_precisions_stay(precision: torch.dtype) -> None:
    """A model in half precision computes in it, as near to fp32 as the library is with it."""
    panel, exact = small_panel(), predict_windows(small_model(), small_panel(), WINDOWS, **SHOWN)
    model = small_model().to(precision)
    ours = predict_windows(model, panel, WINDOWS, **SHOWN)
    theirs = by_the_library(model, panel, WINDOWS, **SHOWN)
    assert {p.dtype for p in model.parameters()} == {precision}
    assert ours.dtype == np.float32
    assert 0 < np.abs(ours - exact).mean() < 1.5 * np.abs(theirs - exact).mean()


def test_levels_that_a_model_lacks() -> None:
    """Between the model's own, by the library's rule."""
    model, panel = small_model(quantiles=[0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99]), small_panel()
    theirs = by_the_library(model, panel, WINDOWS, **SHOWN, unrolled_quantiles=[0.5])
    assert_equal(predict_windows(model, panel, WINDOWS, **SHOWN), theirs)


def test_nothing_of_the_library_lies_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """One forward pass for all windows of a length, without its pipeline and data sets."""
    from chronos import Chronos2Pipeline

    model, panel = small_model(), small_panel()
    monkeypatch.delattr(Chronos2Pipeline, "predict")
    seen = batches_seen(model)
    windows = [Window(0, origin) for origin in range(64, 164)]
    predict_windows(model, panel, windows, **SHOWN)
    assert seen == [(5 * 100, 64)]


@pytest.mark.parametrize("tokens", [1, 5 * 7 * 4, 5 * 7 * 5 - 1])
def test_batches_by_tokens(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least one window; the last batch is what is left; the results are the same."""
    model, panel = small_model(), small_panel()
    windows = [Window(0, origin) for origin in range(300, 311)]
    together = predict_windows(model, panel, windows, **SHOWN)
    monkeypatch.setattr(forecaster, "_CPU_BATCH_TOKENS", tokens)
    seen = batches_seen(model)
    assert_equal(predict_windows(model, panel, windows, **SHOWN), together)
    at_once = max(1, tokens // 35)
    assert [rows // 5 for rows, _ in seen] == [min(at_once, 11 - done) for done in range(0, 11, at_once)]


@pytest.mark.parametrize(("known", "expected"), [(True, [60]), (False, [20, 20, 20])])
def test_batches_by_rows(known: bool, expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where attention spans all rows of a batch."""
    monkeypatch.setattr(forecaster, "_BATCH_ROWS", 24)
    if not known:
        monkeypatch.setattr(attention, "KNOWN_SOURCES", frozenset())
    model, panel = small_model(), small_panel()
    windows = [Window(0, origin) for origin in range(300, 312)]
    theirs = by_the_library(model, panel, windows, **SHOWN)
    seen = batches_seen(model)
    assert_equal(predict_windows(model, panel, windows, **SHOWN), theirs)
    assert [rows for rows, _ in seen] == expected


@pytest.mark.filterwarnings("ignore:We recommend keeping prediction length")
@pytest.mark.parametrize(
    ("horizon", "most", "expected"),
    [(HORIZON, 3, [11, 5, 2, 2, 2, 2, 2, 1]), (100, 27, [5, 45, *[2, 18] * 5, 1, 9])],
    ids=["one pass", "nine paths"],
)
def test_memory_that_runs_out(horizon: int, most: int, expected: list[int], caplog: pytest.LogCaptureFixture) -> None:
    """Half of the windows, and half again, until they fit; the results are the same."""
    model, panel = small_model(), small_panel()
    windows, shown = [Window(0, origin) for origin in range(280, 291)], {**SHOWN, "horizon": horizon}
    theirs = by_the_library(model, panel, windows, **shown)
    seen = batches_seen(model, most)
    assert_equal(predict_windows(model, panel, windows, **shown), theirs)
    assert [rows // 5 for rows, _ in seen] == expected
    assert "no memory to forecast 5 windows at once (DefaultCPUAllocator: not enough memory)" in caplog.text


def test_one_window_that_does_not_fit() -> None:
    """Is an error that says what to change."""
    model = small_model()
    batches_seen(model, most=0)
    with pytest.raises(OutOfMemoryError, match=r"one of 5 rows and context 64 .*not enough memory.*; lower context"):
        predict_windows(model, small_panel(), [Window(0, 300), Window(0, 301)], **SHOWN)
    assert not model.training


def test_other_errors_are_not_retried() -> None:
    """A fault in the code is no lack of memory."""
    model = small_model()
    seen = batches_seen(model, most=0, message="mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        predict_windows(model, small_panel(), [Window(0, 300), Window(0, 301)], **SHOWN)
    assert len(seen) == 1


@pytest.mark.filterwarnings("error::UserWarning")
def test_horizons_beyond_the_model(recwarn: pytest.WarningsRecorder) -> None:
    """Longer than one forward pass: the library's own continuation, without its warning."""
    model, panel = small_model(max_output_patches=1), small_panel()
    arguments: dict[str, Any] = {"context_length": CONTEXT, "horizon": 40, "covariates": ALL}
    ours = predict_windows(model, panel, [Window(0, 300), Window(1, 180)], **arguments)
    recwarn.clear()
    with pytest.warns(UserWarning, match="keeping prediction length"):
        theirs = by_the_library(model, panel, [Window(0, 300), Window(1, 180)], CONTEXT, 40, ALL)
    assert_equal(ours, theirs)


def test_windows_do_not_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window's forecast is the same alone, with others, and in batches of one window."""
    model, panel = small_model(), small_panel()
    arguments: dict[str, Any] = {"context_length": CONTEXT, "horizon": HORIZON, "covariates": ALL}
    together = predict_windows(model, panel, WINDOWS, **arguments)
    alone = np.concatenate([predict_windows(model, panel, [window], **arguments) for window in WINDOWS])
    monkeypatch.setattr(forecaster, "_CPU_BATCH_TOKENS", 1)
    one_by_one = predict_windows(model, panel, WINDOWS, **arguments)
    assert_equal(together, alone)
    np.testing.assert_array_equal(one_by_one, alone)


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


@pytest.mark.parametrize("horizon", [HORIZON, 100])
@pytest.mark.parametrize("levels", [QUANTILES, EVALUATION_LEVELS, (0.02, 0.33, 0.5, 0.98)], ids=len)
def test_quantiles_do_not_cross(levels: tuple[float, ...], horizon: int) -> None:
    """Whichever are asked for, in whatever order, however far; the model's own, whose weights are random, do cross."""
    model, asked = small_model(), {**SHOWN, "horizon": horizon}
    forward = predict_windows(model, small_panel(), WINDOWS, **asked, levels=levels)
    backward = predict_windows(model, small_panel(), WINDOWS, **asked, levels=levels[::-1])
    assert (np.diff(forward, axis=1) >= 0).all()
    np.testing.assert_array_equal(backward, forward[:, ::-1])
    raw = model(context=torch.randn(3, 64), num_output_patches=1).quantile_preds
    assert (raw.diff(dim=1) < 0).any()
