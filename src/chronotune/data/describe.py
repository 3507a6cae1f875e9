"""The facts about a dataset that `chronotune check` shows.

Its numbers are of training and validation. The test segment is only in what the checks say of all rows: that values are
missing, or no numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from chronotune import metrics
from chronotune.config.recipe import Recipe
from chronotune.data.panel import Panel, Split
from chronotune.data.rows import duration

if TYPE_CHECKING:
    from chronotune.data.prepare import Dataset


def describe(dataset: Dataset, recipe: Recipe) -> dict[str, Any]:
    """What the data are and how they are cut, as plain values for a table or JSON.

    Times are interval starts in ISO 8601. `last_value_r2` is the R2 of repeating the last value one step ahead on
    the validation segment, the median over series: high in time order, about -1 when rows are shuffled.
    """
    panel, split = dataset.panel, dataset.split
    return {
        "recipe": recipe.name,
        "data": dataset.report.where,
        "series": len(panel.series),
        "rows": sum(len(series) for series in panel.series),
        "missing_targets": _missing(panel.until(split.test_start)),
        "step": duration(panel.step),
        "target": panel.target,
        "past_only": list(panel.past_only),
        "known_future": list(panel.known_future),
        "encoded": sorted(panel.encodings),
        "start": panel.start.isoformat(),
        "validation_start": panel.time(split.train_end).isoformat(),
        "test_start": panel.time(split.test_start).isoformat(),
        "end": panel.time(split.end).isoformat(),
        "horizon": recipe.horizon,
        "validation_origins": len(split.validation_origins),
        "test_origins": len(split.test_origins),
        "last_value_r2": last_value_r2(panel, split),
        "warnings": dataset.report.lines("warning"),
        "fingerprint": dataset.fingerprint,
    }


def _missing(panel: Panel) -> int:
    return sum(int(np.isnan(series.target).sum()) for series in panel.series)


def last_value_r2(panel: Panel, split: Split) -> float | None:
    """R2 of the last value at horizon 1 on the validation segment, the median over series; None if none varies."""
    validation = [
        series.target[max(split.train_end - 1 - series.offset, 0) :] for series in panel.until(split.test_start).series
    ]
    scores = np.array([metrics.last_value_r2(target) for target in validation if len(target) > 1])
    known = scores[np.isfinite(scores)]
    return round(float(np.median(known)), 4) if len(known) else None
