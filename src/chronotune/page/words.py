"""Numbers in words, and the words that a reader may not know."""

from __future__ import annotations

from typing import Any

METRICS = ("sql", "wql", "mase", "mae", "rmse", "r2", "mape", "coverage80")
AGAIN = (
    "To have it, evaluate the sweep again: chronotune evaluate and this folder; the opening is counted, and "
    "report.html written anew."
)
MEANINGS = {
    "zero-shot": "The pretrained model as it came, without any training on these data, in the setting that validation "
    "preferred.",
    "validation, test": "Two later parts of the time span. Validation chooses among trials; the test part is opened "
    "only when everything is chosen.",
    "SQL": "Scaled quantile loss: how far the whole forecast distribution is from what came true, divided by the error "
    "of repeating the last season in training. 1 is as bad as repeating, lower is better.",
    "MASE": "The same of the median forecast alone: its mean absolute error, scaled.",
    "WQL": "Quantile loss divided by the mean of what came true.",
    "MAE, RMSE": "Mean absolute error, and root of the mean squared error, in the units of the data.",
    "coverage80": "Share of actual values inside the interval that should hold 80% of them.",
    "rung": "A number of training windows after which trials are compared and the worse ones stopped.",
    "quantile": "A value that the truth should stay below in a given share of cases.",
}


def figure_of(value: Any, form: str = "") -> str:
    """A number in a table; nothing for None."""
    return "" if value is None else format(value, form)


def percent(value: float | None) -> str:
    """A gain with its sign."""
    return "unknown" if value is None else f"{value:+.1%}"


def moment(iso: str) -> str:
    """A time of ISO 8601 as people write it: no T, no seconds that are 0, no midnight."""
    return iso.replace("T", " ").removesuffix(":00").removesuffix(" 00:00")


def plural(count: int, noun: str) -> str:
    """`1 window`, `2 windows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
