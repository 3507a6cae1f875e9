"""The one regular time axis that all series of a panel stand on, and the series laid out on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from chronotune.config.model import Encoding
from chronotune.config.recipe import DataConfig
from chronotune.data.panel import Panel, Series
from chronotune.data.rows import SERIES, TIME


@dataclass(frozen=True)
class Axis:
    """Regular time steps; start and step in microseconds (since 1970), so that arithmetic is exact."""

    start: int
    step: int
    length: int
    """Steps up to and with the last target of any series. Known covariates may go on behind it."""

    def time(self, position: int) -> datetime:
        """Timestamp (interval start) of a position."""
        return datetime(1970, 1, 1) + timedelta(microseconds=self.start + position * self.step)


def commonest_step(ordered: pl.DataFrame) -> int | None:
    """The most frequent distance between neighbours, the shorter of two equally frequent; None without any."""
    return _commonest(ordered.select(pl.col(TIME).diff().over(SERIES)).to_series().drop_nulls())


def phase(ordered: pl.DataFrame, step: int) -> int:
    """The most frequent remainder of the times by the step: what puts a time on the grid."""
    remainder = _commonest(ordered[TIME] % step)
    assert remainder is not None
    return remainder


def _commonest(values: pl.Series) -> int | None:
    counts = values.rename("value").value_counts().sort(["count", "value"], descending=[True, False])
    return int(counts["value"][0]) if counts.height else None


def find_axis(ordered: pl.DataFrame, target: str) -> Axis | None:
    """The axis that the series share; None when no step can be told or there is no target at all.

    Args:
        ordered: A framed table as `rows.in_order` gives it.
        target: Name of the target column.
    """
    step = commonest_step(ordered)
    if step is None:
        return None
    on_grid = ordered.filter(pl.col(TIME) % step == phase(ordered, step))
    start, last = on_grid[TIME].min(), on_grid.filter(pl.col(target).is_not_null())[TIME].max()
    if not isinstance(start, int) or not isinstance(last, int):
        return None
    return Axis(start, step, (last - start) // step + 1)


def lay_out(rows: pl.DataFrame, axis: Axis, data: DataConfig, encodings: Mapping[str, Encoding]) -> Panel:
    """A panel with one `Series` for each id, in the file's order; missing steps inside it are NaN.

    Args:
        rows: A framed table that has passed its check, all columns encoded as numbers.
        axis: The time axis of the panel.
        data: Names the target and the covariates.
        encodings: By which columns of categories became numbers.
    """
    columns = [data.target, *data.past_only, *data.known_future]
    parts = rows.partition_by(SERIES, maintain_order=True)
    return Panel(
        axis.time(0),
        timedelta(microseconds=axis.step),
        data.target,
        tuple(data.past_only),
        tuple(data.known_future),
        tuple(_series(part, axis, columns, part[SERIES][0] or data.target) for part in parts),
        encodings,
    )


def _series(rows: pl.DataFrame, axis: Axis, columns: list[str], name: str) -> Series:
    positions = ((rows[TIME] - axis.start) // axis.step).to_numpy()
    offset = int(positions[0])
    matrix = np.full((len(columns), int(positions[-1]) - offset + 1), np.nan, dtype=np.float32)
    for row, column in enumerate(columns):
        matrix[row, positions - offset] = rows[column].to_numpy()
    return Series(name, offset, matrix[0], matrix[1:])
