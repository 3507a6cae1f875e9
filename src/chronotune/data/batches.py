"""Which windows a training step sees, and the arrays that Chronos-2 reads them from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chronotune.data.panel import Panel, Window
from chronotune.errors import ChronotuneError


def check_context(context_length: int, limit: int) -> None:
    """Refuse a context that the library would silently cut to the model's `limit`.

    Raises:
        ChronotuneError: `context_length` is longer.
    """
    if context_length > limit:
        raise ChronotuneError(
            f"context_length must not exceed the {limit} steps that the model takes, but is {context_length}; "
            "lower it in the search space"
        )


def step_size(windows_seen: int, effective_batch: int, rungs: Sequence[int]) -> int:
    """Windows of the next optimizer step: the effective batch, cut so that the next rung is reached exactly.

    So the whole plan of steps is a function of the batch and the rungs, however training is sliced or resumed.

    Args:
        windows_seen: Before the step; below the last rung.
        effective_batch: Windows of an uncut step.
        rungs: Windows seen at which a trial is scored, ascending.
    """
    next_rung = min(rung for rung in rungs if rung > windows_seen)
    return min(effective_batch, next_rung - windows_seen)


def trainable_series(panel: Panel, horizon: int) -> tuple[int, ...]:
    """Numbers of the series that hold a past and a future of `horizon` steps each, the least that training takes.

    The same rule as `Chronos2Pipeline.fit` (its `min_past` is the prediction length).

    Raises:
        ChronotuneError: There is none.
    """
    numbers = tuple(number for number, series in enumerate(panel.series) if len(series) >= 2 * horizon)
    if not numbers:
        raise ChronotuneError(
            f"training needs a series with at least {2 * horizon} steps (twice the horizon) before validation begins, "
            f"but the longest has {max(map(len, panel.series))}; shorten horizon or give more data"
        )
    return numbers


def draw_windows(
    panel: Panel, candidates: Sequence[int], horizon: int, *, seed: int, step: int, size: int
) -> tuple[Window, ...]:
    """The windows of optimizer step `step`: a function of its arguments alone, with no hidden state.

    A series is drawn uniformly from the candidates, then an origin uniformly from those with at least `horizon` steps
    of past and `horizon` steps of future inside the panel.

    Args:
        panel: The training segment.
        candidates: Series numbers, as from `trainable_series`.
        horizon: Steps to forecast.
        seed: Of the whole training run.
        step: Number of the optimizer step, from 0.
        size: Windows to draw.
    """
    random = np.random.default_rng(np.random.SeedSequence([seed, step]))
    chosen = [candidates[index] for index in random.integers(len(candidates), size=size).tolist()]
    last = [len(panel.series[number]) - horizon for number in chosen]
    origins = random.integers(horizon, last, endpoint=True).tolist()
    return tuple(map(Window, chosen, origins))


@dataclass(frozen=True)
class Batch:
    """Windows as `Chronos2Model.forward` takes them; each window is one group of 1 + covariates rows."""

    context: NDArray[np.float32]
    """Shape (rows, longest context), padded with NaN on the left."""
    future_target: NDArray[np.float32]
    """Shape (rows, horizon), NaN in the rows of covariates: they carry no loss."""
    future_covariates: NDArray[np.float32]
    """Shape (rows, horizon), NaN in the rows of the target and of past-only covariates."""
    group_ids: NDArray[np.int64]
    """Shape (rows,), the number of each row's window."""


def copy_into(
    context: NDArray[np.float32], known: NDArray[np.float32], panel: Panel, windows: Sequence[Window]
) -> None:
    """Copy what a model is given for some windows, once, from the panel's arrays; the rest is left as it is.

    Args:
        context: Filled with NaN; shape (windows, rows, steps). Pasts are cut to these steps, and stand at their end.
        known: Filled with NaN; shape (windows, rows, horizon). Gets the future of known covariates, as far as it goes.
        panel: With the wanted covariates only; rows are target, past-only, known-future.
        windows: As many.
    """
    steps, horizon, first = context.shape[2], known.shape[2], len(panel.past_only)
    for i, window in enumerate(windows):
        series, origin = panel.series[window.series], window.origin
        past = slice(max(0, origin - steps), origin)
        begin = steps - (past.stop - past.start)
        context[i, 0, begin:] = series.target[past]
        context[i, 1:, begin:] = series.covariates[:, past]
        future = series.covariates[first:, origin : origin + horizon]
        known[i, 1 + first :, : future.shape[1]] = future


def collate(panel: Panel, windows: Sequence[Window], context_length: int, horizon: int) -> Batch:
    """Copy windows out of the panel into one batch.

    Args:
        panel: With the wanted covariates only; holds `horizon` steps after every origin.
        windows: At least one.
        context_length: The longest past to take.
        horizon: Steps to forecast.
    """
    rows, longest = 1 + len(panel.covariates), max(min(context_length, window.origin) for window in windows)
    context = np.full((len(windows), rows, longest), np.nan, dtype=np.float32)
    target = np.full((len(windows), rows, horizon), np.nan, dtype=np.float32)
    known = np.full_like(target, np.nan)
    copy_into(context, known, panel, windows)
    for i, window in enumerate(windows):
        target[i, 0] = panel.series[window.series].target[window.origin : window.origin + horizon]
    return Batch(
        context.reshape(-1, longest),
        target.reshape(-1, horizon),
        known.reshape(-1, horizon),
        np.repeat(np.arange(len(windows)), rows),
    )
