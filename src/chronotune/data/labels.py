"""A column of the data as labels of forecast steps, whether it is a covariate or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from chronotune.config.recipe import DataConfig
from chronotune.data.panel import Panel, Window
from chronotune.data.rows import SERIES, TIME, framed
from chronotune.errors import InputError

MOST = 50
"""Distinct values that a column of segments may have."""


def column_labels(
    frame: pl.DataFrame, data: DataConfig, column: str, panel: Panel, windows: Sequence[Window], horizon: int
) -> NDArray[Any]:
    """The values of `column`, as text, at each step of each window; None where the file has none.

    Args:
        frame: In file order, as `sources.read` gives it with the column among its `segments`.
        data: Names the roles of its columns.
        column: A column of the frame.
        panel: Made of that frame.
        windows: Of the panel.
        horizon: Steps of each window.

    Returns:
        Shape (windows, horizon).

    Raises:
        InputError: The column has too many values to be segments.
    """
    refuse_fine(frame, [column])
    named = [_laid_out(part, column, panel) for part in _parts(frame, data)]
    labels = np.full((len(windows), horizon), None, dtype=object)
    for row, window in enumerate(windows):
        values = named[window.series][panel.series[window.series].offset + window.origin :][:horizon]
        labels[row, : len(values)] = values
    return labels


def refuse_fine(frame: pl.DataFrame, columns: Sequence[str]) -> None:
    """Do nothing when each of the columns has few enough values to tell segments apart.

    Raises:
        InputError: One has too many.
    """
    for column in columns:
        if (distinct := frame[column].n_unique()) > MOST:
            raise InputError(
                f"evaluation.segments must name columns of at most {MOST} distinct values, but {column!r} has "
                f"{distinct}. Give the file a coarser column, or leave it out"
            )


def _parts(frame: pl.DataFrame, data: DataConfig) -> list[pl.DataFrame]:
    """The rows of each series, in the panel's order: that of the file."""
    return framed(frame, data).partition_by(SERIES, maintain_order=True)


def _laid_out(rows: pl.DataFrame, column: str, panel: Panel) -> NDArray[Any]:
    """One series on the panel's whole time axis."""
    start = np.datetime64(panel.start, "us").astype(np.int64)
    step = panel.step.days * 86_400_000_000 + panel.step.seconds * 1_000_000 + panel.step.microseconds
    positions = (rows[TIME].to_numpy() - start) // step
    values = np.full(max(panel.end, int(positions.max()) + 1), None, dtype=object)
    values[positions] = rows[column].cast(pl.String).to_list()
    return values
