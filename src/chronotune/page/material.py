"""What a report is made of: the sweep's study, and the files beside it, as far as they are there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chronotune.lease import other_driver
from chronotune.metrics import without_nan
from chronotune.results import finalists, leaderboard
from chronotune.study import Reader, Reading

if TYPE_CHECKING:
    import optuna

DATA = "data.json"
"""What `describe` tells of the data, written beside the report when a sweep ends."""


@dataclass(frozen=True)
class Material:
    """Everything that is known of one sweep when its report is written."""

    directory: Path
    reading: Reading
    study: optuna.Study
    """The same as `reading`, as Optuna's plots want it."""
    board: list[dict[str, Any]]
    """Rows of `results.leaderboard`."""
    finalists: list[dict[str, Any]]
    """Rows of `results.finalists`."""
    segments: Mapping[str, list[dict[str, Any]]]
    """Empty for a sweep that was not evaluated, or before there were tables."""
    windows: Mapping[str, Any]
    """`Specimens.as_dict`; empty likewise, or when it is of an earlier winner's weights."""
    data: Mapping[str, Any]
    """`data.describe.describe`; empty for a sweep of before reports."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe as the study keeps it."""
        recipe: Mapping[str, Any] = self.reading.attributes["recipe"]
        return recipe

    @property
    def objective(self) -> str:
        """The metric that trials are ranked by."""
        return str(self.recipe["objective"])

    @property
    def evaluation(self) -> Mapping[str, Any]:
        """Empty when there is none."""
        return without_nan(dict(self.reading.evaluation or {})) or {}

    @property
    def verdict(self) -> Mapping[str, Any]:
        """Empty when there is none."""
        return self.evaluation.get("verdict") or {}

    @property
    def pair(self) -> tuple[str, str]:
        """The names of the challenger and of zero-shot, which the verdict compares."""
        return str(self.verdict.get("challenger", "best")), str(self.verdict.get("zero_shot", "zero-shot"))

    @property
    def shown_models(self) -> list[str]:
        """The pair, then the strongest of the others: what plots of several models show at first."""
        scored = [row for row in self.evaluation.get("rows", []) if row.get(self.objective) is not None]
        others = sorted((row[self.objective], row["model"]) for row in scored if row["model"] not in self.pair)
        return [*self.pair, *(name for _, name in others[:1])]


def gather(directory: Path) -> Material:
    """Read what there is of a running, dead or finished sweep.

    Raises:
        InputError: `directory` holds no sweep.
    """
    driven, reader = other_driver(directory) is not None, Reader(directory)
    reading = reader.read()
    windows = _read(directory / "windows.json")
    evaluated = (reading.evaluation or {}).get("sha256")
    return Material(
        directory=directory,
        reading=reading,
        study=reader.as_optuna,
        board=without_nan(leaderboard(reading, driven).to_dicts()),
        finalists=without_nan(finalists(reading, driven)),
        segments=_read(directory / "segments.json") if reading.evaluation else {},
        windows=windows if evaluated is not None and windows.get("sha256") == evaluated else {},
        data=_read(directory / DATA),
    )


def _read(path: Path) -> dict[str, Any]:
    """A file of JSON; empty when it is not there, or was cut off while it was written."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
