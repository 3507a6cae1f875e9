"""Forecast windows of a panel with a Chronos-2 model."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chronotune import device as devices
from chronotune.attention import inside_windows, is_known
from chronotune.data.batches import check_context, copy_into
from chronotune.data.panel import Panel, Window
from chronotune.data.windows import cut
from chronotune.errors import OutOfMemoryError
from chronotune.metrics import QUANTILES
from chronotune.pretrained import load_model, locate

if TYPE_CHECKING:
    from chronos.chronos2.model import Chronos2Model
    from torch import Tensor

log = logging.getLogger("chronotune.forecaster")

__all__ = ["load_model", "locate", "predict_windows"]

Forecasts: TypeAlias = NDArray[np.float32]
"""Shape (windows, levels, horizon)."""

_BATCH_TOKENS = 2**15
"""Tokens computed at once, rows of covariates included: what decides the memory."""
_CPU_BATCH_TOKENS = 2**12
"""The same on a CPU, where more do not share the weights better, but fall out of its caches."""
_BATCH_ROWS = 256
"""Rows computed at once where group attention spans the whole batch and so is quadratic in them."""


def predict_windows(
    model: Chronos2Model,
    panel: Panel,
    windows: Sequence[Window],
    *,
    context_length: int,
    horizon: int,
    covariates: Sequence[str],
    levels: Sequence[float] = QUANTILES,
) -> Forecasts:
    """Quantile forecasts, each window on its own: but for last places the result does not depend on the others.

    The same numbers as `Chronos2Pipeline.predict_quantiles` with the windows as dictionaries, also beyond the model's
    longest single forecast, where the library feeds its quantiles back; but where those of the result cross they are
    put into order (Chernozhukov, Fernandez-Val & Galichon 2010). The model's mode and the global random number
    generators are left as they were. When memory runs out, fewer windows are computed at once.

    Args:
        model: On any device; computes in its own precision.
        panel: Past of the target and past-only covariates; past and future of the known-future ones.
        windows: What to forecast.
        context_length: The longest past that is shown, at most the model's.
        horizon: Steps to forecast.
        covariates: Names of those to show.
        levels: Of the quantiles to give; others than the model's own 21 are interpolated.

    Returns:
        Shape (windows, levels, horizon).

    Raises:
        ChronotuneError: `context_length` is longer than the model's.
        OutOfMemoryError: A single window does not fit into memory.
    """
    shape = model.chronos_config
    check_context(context_length, shape.context_length)
    way = _way(model, panel.select(covariates), horizon, levels)
    result = np.empty((len(windows), len(levels), horizon), dtype=np.float32)
    tokens = _CPU_BATCH_TOKENS if model.device.type == "cpu" else _BATCH_TOKENS
    with _evaluating(model):
        for steps, numbers in _by_steps(windows, context_length, shape.input_patch_size).items():
            per_window = way.rows * (math.ceil(steps / shape.input_patch_size) + 1 + way.patches)
            while numbers:
                part = numbers[: max(1, min(tokens // per_window, way.most_rows // way.rows))]
                forecasts = _unless_memory_ends(way, [windows[number] for number in part], steps)
                if forecasts is None:
                    tokens = len(part) // 2 * per_window
                else:
                    result[part], numbers = forecasts, numbers[len(part) :]
    return result


@dataclass(frozen=True)
class _Way:
    """How a batch is forecast, and what decides how large it may be."""

    forecast: Callable[[Sequence[Window], int], Forecasts]
    """Of some windows, each shown at most so many steps of its past."""
    rows: int
    """Of one window in the model."""
    patches: int
    """Of one forward pass, forecast."""
    most_rows: int


def _way(model: Chronos2Model, panel: Panel, horizon: int, levels: Sequence[float]) -> _Way:
    """In one pass where that reaches the horizon, else as the library goes on from every quantile."""
    rows, longest = 1 + len(panel.covariates), model.chronos_config.max_output_patches
    patches = math.ceil(horizon / model.chronos_config.output_patch_size)
    if patches > longest:
        return _Way(partial(_continued, model, panel, horizon, levels), rows * len(QUANTILES), longest, _BATCH_ROWS)
    most_rows = _BATCH_TOKENS if is_known() else _BATCH_ROWS  # a row has more than one token
    return _Way(partial(_in_one_pass, model, panel, horizon, patches, levels), rows, patches, most_rows)


def _by_steps(windows: Sequence[Window], context_length: int, patch: int) -> dict[int, list[int]]:
    """Numbers of the windows by the steps that their pasts are padded to, which each decides for itself.

    To a power of two patches or the whole context, so that short pasts are not computed as long ones, and a window's
    forecast does not depend on which others are in its batch.
    """
    groups: dict[int, list[int]] = {}
    for number, window in enumerate(windows):
        patches = max(1, math.ceil(window.origin / patch))
        steps = min(context_length, patch << (patches - 1).bit_length())
        groups.setdefault(steps, []).append(number)
    return groups


@contextmanager
def _evaluating(model: Chronos2Model) -> Iterator[None]:
    """Without dropout and gradients inside the block."""
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def _unless_memory_ends(way: _Way, windows: Sequence[Window], steps: int) -> Forecasts | None:
    """Forecasts of a batch; None when memory does not hold it, but may hold half of it.

    Raises:
        OutOfMemoryError: It is one window.
    """
    try:
        return way.forecast(windows, steps)
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
        reason = devices.reason(error)
    devices.release()  # outside of `except`: until there, the traceback keeps the tensors of the failed try
    if len(windows) == 1:
        raise OutOfMemoryError(
            f"a forecast must fit one window into memory, but one of {way.rows} rows and context {steps} did not "
            f"({reason}); lower context_length, use fewer covariates, or run fewer trials at a time"
        )
    log.warning("no memory to forecast %d windows at once (%s); tried with half of them", len(windows), reason)
    return None


def _in_one_pass(
    model: Chronos2Model,
    panel: Panel,
    horizon: int,
    patches: int,
    levels: Sequence[float],
    windows: Sequence[Window],
    steps: int,
) -> Forecasts:
    """Forecasts of one batch by one forward pass."""
    import torch

    rows = 1 + len(panel.covariates)
    context = np.full((len(windows), rows, steps), np.nan, dtype=np.float32)
    known = np.full((len(windows), rows, horizon), np.nan, dtype=np.float32)
    copy_into(context, known, panel, windows)
    groups = np.repeat(np.arange(len(windows)), rows)
    batch = {"context": context.reshape(-1, steps), "future_covariates": known.reshape(-1, horizon)}
    tensors = {name: torch.from_numpy(a).to(model.device) for name, a in {**batch, "group_ids": groups}.items()}
    with inside_windows(model, rows=rows, patches=patches):
        quantiles = model(**tensors, num_output_patches=patches).quantile_preds
    targets = _in_order(levels, quantiles[::rows, :, :horizon], model.chronos_config.quantiles)
    return np.asarray(targets.cpu().numpy(), dtype=np.float32)


def _in_order(levels: Sequence[float], quantiles: Tensor, models: list[float]) -> Tensor:
    """From shape (windows, models, horizon) to (windows, levels, horizon); absent levels by the library's rule.

    All the model's quantiles are put into order, so that one is the same whichever others are asked for.
    """
    quantiles = quantiles.sort(dim=1).values
    if set(levels) <= set(models):
        return quantiles[:, [models.index(level) for level in levels]]
    from chronos.utils import interpolate_quantiles

    return interpolate_quantiles(list(levels), models, quantiles.mT).mT


def _continued(
    model: Chronos2Model,
    panel: Panel,
    horizon: int,
    levels: Sequence[float],
    windows: Sequence[Window],
    steps: int,
) -> Forecasts:
    """Forecasts of one batch beyond one forward pass, where covariates' forecasts are read on too."""
    import torch
    from chronos import Chronos2Pipeline

    inputs, models = [_prepared(panel, window, steps, horizon) for window in windows], model.chronos_config.quantiles
    # the library's data loader draws a seed from the global generator at every call
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), inside_windows(model):
        warnings.filterwarnings("ignore", message="We recommend keeping prediction length")
        quantiles, _ = Chronos2Pipeline(model).predict_quantiles(
            inputs,
            prediction_length=horizon,
            quantile_levels=models,
            context_length=steps,
            batch_size=len(windows) * (1 + len(panel.covariates)),
            cross_learning=False,
        )
    ordered = _in_order(levels, torch.stack([forecast[0].T for forecast in quantiles]), models)
    return np.asarray(ordered.numpy(), dtype=np.float32)


def _prepared(panel: Panel, window: Window, context_length: int, horizon: int) -> dict[str, Any]:
    """A window as the library's `PreparedInput`: rows are target, past-only, known-future."""
    import torch

    context, known = cut(panel, window, context_length, horizon)
    future = np.full((len(context), horizon), np.nan, dtype=np.float32)
    future[len(context) - len(known) :] = known
    return {
        "context": torch.tensor(context, dtype=torch.float32),
        "future_covariates": torch.from_numpy(future),
        "n_targets": 1,
        "n_covariates": len(panel.covariates),
        "n_future_covariates": len(panel.known_future),
    }
