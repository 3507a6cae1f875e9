"""What forecasts of some windows are worth: scores, tables by step and segment, and losses by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chronotune import metrics, segments
from chronotune.config.recipe import Recipe
from chronotune.data.labels import column_labels
from chronotune.data.panel import FloatArray, Panel, TrialData, Window
from chronotune.data.prepare import Dataset, scored_windows, training_scales
from chronotune.data.sources import read
from chronotune.data.windows import actuals
from chronotune.metrics import EVALUATION_LEVELS
from chronotune.openings import Openings
from chronotune.significance import DAY, Comparison, by_day, compare, overlap
from chronotune.verdict import Verdict


@dataclass(frozen=True)
class Ruler:
    """Windows of a recipe, of validation or test; every forecast of them on EVALUATION_LEVELS is measured alike."""

    recipe: Recipe
    panel: Panel
    windows: tuple[Window, ...]
    actual: NDArray[np.float64]
    """Shape (windows, horizon)."""
    scales: NDArray[np.float64]
    """Shape (windows,)."""
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Labels, shape (windows, horizon), by the columns of `evaluation.segments`."""

    @classmethod
    def of_test(cls, dataset: Dataset, recipe: Recipe) -> Ruler:
        """The windows at the test origins of all series that have a training scale.

        Raises:
            InputError: A column of `evaluation.segments` is not in the data, or has too many values.
        """
        panel, horizon, wanted = dataset.panel, recipe.horizon, recipe.evaluation.segments
        by_series = training_scales(panel, dataset.split, recipe)
        windows = scored_windows(panel, dataset.split.test_origins, by_series, horizon)
        frame = read(recipe.data, wanted) if wanted else None
        columns = (
            {name: column_labels(frame, recipe.data, name, panel, windows, horizon) for name in wanted}
            if frame is not None
            else {}
        )
        scales = by_series[[window.series for window in windows]]
        return cls(recipe, panel, windows, actuals(panel, windows, horizon), scales, columns)

    @classmethod
    def of_validation(cls, data: TrialData, recipe: Recipe, most: int | None = None) -> Ruler:
        """The windows that trials are scored on, or `most` of them at even distances; no columns are read."""
        windows = data.validation if most is None else tuple(data.validation[row] for row in spread(data, most))
        scales = data.scales[[window.series for window in windows]]
        return cls(recipe, data.panel, windows, actuals(data.panel, windows, data.horizon), scales)

    @property
    def origins(self) -> list[int]:
        """The origin of each window on the panel's time axis."""
        return [self.panel.series[window.series].offset + window.origin for window in self.windows]

    @property
    def about(self) -> dict[str, Any]:
        """The beginning of an evaluation: recipe, horizon, number of windows, and where the first and last begin."""
        times = self._times()
        return {
            "recipe": self.recipe.name,
            "horizon": self.recipe.horizon,
            "windows": len(self.windows),
            "first_origin": min(times).isoformat(),
            "last_origin": max(times).isoformat(),
        }

    def score(self, predictions: FloatArray) -> dict[str, float]:
        """All metrics over all windows."""
        return metrics.score(predictions, self.actual, self.scales, EVALUATION_LEVELS)

    def tables(self, predictions: FloatArray) -> dict[str, list[dict[str, Any]]]:
        """All metrics by `step`, `hour`, `weekday`, `series` (of a panel), and each column of `evaluation.segments`."""
        data = (predictions, self.actual, self.scales)
        tables = {"step": segments.by_step(*data, EVALUATION_LEVELS)}
        for kind, (labels, order) in segments.calendar(self.panel, self.windows, self.recipe.horizon).items():
            tables[kind] = segments.by_segment(*data, labels, order, EVALUATION_LEVELS)
        if len(self.panel.series) > 1:
            numbers = np.array([window.series for window in self.windows])
            names = [series.id for series in self.panel.series]
            tables["series"] = segments.by_series(*data, numbers, names, EVALUATION_LEVELS)
        for column, labels in self.columns.items():
            tables[column] = segments.by_segment(*data, labels, None, EVALUATION_LEVELS)
        return tables

    def by_window(self, predictions: FloatArray) -> FloatArray:
        """Additive losses of the objective, shape (windows,)."""
        objective = self.recipe.objective
        return metrics.additive_losses(predictions, self.actual, self.scales, objective, EVALUATION_LEVELS)

    def losses(self, predictions: FloatArray) -> FloatArray:
        """Additive losses of the objective, shape (days, series): what a verdict compares."""
        series = np.array([window.series for window in self.windows])
        return by_day(self.by_window(predictions), self._days(), series)

    def _days(self) -> NDArray[np.int64]:
        """A number for the day of each window's origin."""
        return np.array([time.toordinal() for time in self._times()], dtype=np.int64)

    def _times(self) -> list[datetime]:
        """The time of each window's origin."""
        return [self.panel.time(origin) for origin in self.origins]

    def verdict(
        self, challenger: str, zero_shot: str, losses: Mapping[str, FloatArray], openings: Openings | None
    ) -> Verdict:
        """Compare two models by what `losses` returned for each."""
        comparison = self.compared(losses[challenger], losses[zero_shot])
        unit = "days" if self.panel.step < DAY else "origins"
        return Verdict(challenger, zero_shot, self.recipe.objective, comparison, unit, openings)

    def compared(self, losses: FloatArray, reference: FloatArray) -> Comparison:
        """Compare what `losses` returned for a model and another, or sums of both over the series."""
        return compare(
            losses,
            reference,
            root=self.recipe.objective == "rmse",
            shortest=overlap(self.panel.step, self.recipe.horizon, self.recipe.stride),
        )


def spread(data: TrialData, most: int) -> NDArray[np.int64]:
    """Numbers of at most so many validation windows, at even distances."""
    count = len(data.validation)
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def merged(
    tables: Mapping[str, list[dict[str, Any]]],
    more: Mapping[str, Sequence[Mapping[str, Any]]],
    about: Mapping[str, Any],
) -> dict[str, list[dict[str, Any]]]:
    """The tables with another model's rows below, each row telling its model."""
    return {kind: [*tables.get(kind, []), *({**about, **row} for row in rows)] for kind, rows in more.items()}
