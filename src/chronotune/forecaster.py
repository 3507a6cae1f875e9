"""Forecast windows of a panel with a Chronos-2 model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chronotune.attention import inside_windows
from chronotune.data.batches import check_context
from chronotune.data.panel import Panel, Window
from chronotune.data.windows import cut
from chronotune.metrics import QUANTILES
from chronotune.pretrained import load_model, locate

if TYPE_CHECKING:
    from chronos.chronos2.model import Chronos2Model

__all__ = ["load_model", "locate", "predict_windows"]

_BATCH_TOKENS = 2**15
_BATCH_ROWS = 256  # group attention is quadratic in the rows of a batch


def predict_windows(
    model: Chronos2Model,
    panel: Panel,
    windows: Sequence[Window],
    *,
    context_length: int,
    horizon: int,
    covariates: Sequence[str],
    levels: Sequence[float] = QUANTILES,
) -> NDArray[np.float32]:
    """Quantile forecasts, each window on its own: the result does not depend on which others are asked for.

    The same numbers as `Chronos2Pipeline.predict_quantiles` with the windows as dictionaries; also beyond the
    model's longest single forecast, where the library feeds its quantiles back. The model's mode and the global
    random number generators are left as they were.

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
    """
    check_context(context_length, model.chronos_config.context_length)
    if not windows:
        return np.empty((0, len(levels), horizon), dtype=np.float32)
    chosen = panel.select(covariates)
    inputs = [_prepared(chosen, window, context_length, horizon) for window in windows]
    batch_rows = _batch_rows(model, 1 + len(chosen.covariates), context_length, horizon)
    forecasts = _predict(model, inputs, context_length, horizon, batch_rows, levels)
    return np.stack([forecast[0].T.numpy() for forecast in forecasts])


def _predict(
    model: Chronos2Model,
    inputs: list[Any],
    context_length: int,
    horizon: int,
    batch_rows: int,
    levels: Sequence[float],
) -> list[Any]:
    """One tensor of shape (1, horizon, levels) per input."""
    import torch
    from chronos import Chronos2Pipeline

    was_training = model.training
    model.eval()
    try:
        # the library's data loader draws a seed from the global generator at every call
        with (
            torch.inference_mode(),
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(),
            inside_windows(model, patches=_only_patches(model, horizon)),
        ):
            warnings.filterwarnings("ignore", message="We recommend keeping prediction length")
            quantiles, _ = Chronos2Pipeline(model).predict_quantiles(
                inputs,
                prediction_length=horizon,
                quantile_levels=list(levels),
                context_length=context_length,
                batch_size=batch_rows,
                cross_learning=False,
            )
    finally:
        model.train(was_training)
    return list(quantiles)


def _only_patches(model: Chronos2Model, horizon: int) -> int | None:
    """Output patches when one forward pass forecasts all; else None, for covariates' forecasts are read on too."""
    patches = math.ceil(horizon / model.chronos_config.output_patch_size)
    return patches if patches <= model.chronos_config.max_output_patches else None


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


def _batch_rows(model: Chronos2Model, rows: int, context_length: int, horizon: int) -> int:
    """Rows of a batch: whole windows, bounded in tokens (memory) and in rows (group attention)."""
    shape = model.chronos_config
    patches = math.ceil(horizon / shape.output_patch_size)
    paths = len(QUANTILES) if patches > shape.max_output_patches else 1  # long forecasts go on from every quantile
    tokens = math.ceil(context_length / shape.input_patch_size) + 1 + min(patches, shape.max_output_patches)
    windows: int = min(_BATCH_TOKENS // tokens, _BATCH_ROWS) // (rows * paths)
    return rows * max(1, windows)
