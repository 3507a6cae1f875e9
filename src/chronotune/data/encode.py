"""Categories become numbers: the mean target of their training rows, learnt before the validation segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from chronotune.config.model import Encoding
from chronotune.errors import Fault, InputError

PRIOR_ROWS = 10
"""Each category's mean is pulled to the overall mean as if by this many rows, so that rare ones are no outliers."""


def categorical(frame: pl.DataFrame, covariates: Sequence[str]) -> list[str]:
    """The covariates that hold text."""
    return [name for name in covariates if frame[name].dtype == pl.String]


def learn(train: pl.DataFrame, target: str, columns: Sequence[str]) -> dict[str, Encoding]:
    """One encoding for each of the columns, from rows of the training segment alone.

    A category becomes (sum of its targets + PRIOR_ROWS x overall mean) / (its rows + PRIOR_ROWS), rows without
    a target left out; a category that training does not hold becomes the overall mean.
    """
    known = train.filter(pl.col(target).is_not_null())
    overall = float(known.select(pl.col(target).mean()).item() or 0.0)
    return {name: _learn_column(known, target, name, overall) for name in columns}


def _learn_column(known: pl.DataFrame, target: str, column: str, overall: float) -> Encoding:
    pulled = (pl.col(target).sum() + PRIOR_ROWS * overall) / (pl.len() + PRIOR_ROWS)
    means = known.drop_nulls(column).group_by(column).agg(pulled.alias("__mean")).sort(column)
    return Encoding(values=dict(zip(means[column], means["__mean"], strict=True)), unseen=overall)


def apply(frame: pl.DataFrame, encodings: Mapping[str, Encoding]) -> pl.DataFrame:
    """The frame with the encoded columns as Float64; a missing category stays missing.

    Raises:
        InputError: A column that was text in training holds numbers now.
    """
    faults = [_not_text(name) for name in encodings if frame[name].dtype.is_numeric()]
    if faults:
        raise InputError(faults)
    return frame.with_columns(
        pl.when(pl.col(name).is_not_null())
        .then(pl.col(name).cast(pl.String).replace_strict(code.values, default=code.unseen, return_dtype=pl.Float64))
        .alias(name)
        for name, code in encodings.items()
    )


def _not_text(name: str) -> Fault:
    return Fault("data", name, "held categories in training, but it holds numbers here", "Give it as text")
