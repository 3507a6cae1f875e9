"""A sweep's folder as an evaluated sweep leaves it, without training: what the tests of the report read."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from chronotune.metrics import EVALUATION_LEVELS
from chronotune.specimens import BINS, FAN
from chronotune.study import Study
from sweep_parts import ask, new_study, result

NASTY = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'
MODELS = ("seasonal naive (24)", "zero-shot", "best")
METRICS = ("sql", "wql", "mase", "mae", "rmse", "r2", "mape", "coverage80")


def searched(directory: Path, complete: int = 4, pruned: int = 4) -> Study:
    """Zero-shot at 0.8, trials with the full budget and ones that were stopped at the first rung."""
    directory.mkdir(parents=True, exist_ok=True)
    study = new_study(directory)
    study.note("zero_shot", [{"context_length": 96, "covariates": "known", "metrics": {"sql": 0.8}}])
    for trial in range(complete + pruned):
        number = ask(study)
        study.record(number, result(3, 0.9 + 0.01 * trial))
        if trial < complete:
            study.record(number, result(27, 0.7 + 0.01 * trial))
        study.finish(number, 27)
    return study


def evaluated(directory: Path, segment: str = "Monday", series: str = "y") -> Study:
    """The same with a winner, and all that an evaluation leaves."""
    study = searched(directory)
    study.note("winner", {"number": 0, "score": 0.7, "sha256": "abc"})
    study.note("evaluation", _evaluation())
    segments = {
        "step": [{**_row(model), "step": step} for model in MODELS for step in (1, 2)],
        "weekday": [{**_row(model), "segment": name} for model in MODELS for name in (segment, "Tuesday")],
    }
    windows = {"sha256": "abc", **_windows(series)}
    about: dict[str, Any] = {
        "series": 1,
        "rows": 100,
        "missing_targets": 0,
        "step": "1 hour",
        "known_future": [],
        "past_only": [],
    }
    about |= {"data": f"{series}.csv", "encoded": [], "warnings": [f"{series}.csv: mend {segment}"]}
    about |= dict.fromkeys(("start", "validation_start", "test_start", "end"), "2024-01-01T00:00:00")
    about |= {"validation_origins": 3, "test_origins": 4, "last_value_r2": 0.5}
    for name, content in {"segments": segments, "windows": windows, "data": about}.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return study


def _row(model: str) -> dict[str, Any]:
    about = {"model": model, "context_length": 96, "covariates": "none"}
    return {**about, **dict.fromkeys(METRICS, 0.5)}


def _evaluation() -> dict[str, Any]:
    verdict: dict[str, Any] = {
        "decision": "ship the challenger",
        "sentence": "ship best: gain +12.0%",
        "challenger": "best",
    }
    verdict |= {"zero_shot": "zero-shot", "objective": "sql", "unit": "days", "gain": 0.12, "low": 0.05, "high": 0.2}
    return {
        "windows": 2,
        "horizon": 3,
        "first_origin": "2024-01-01T00:00:00",
        "last_origin": "2024-01-02T00:00:00",
        "rows": [_row(model) for model in MODELS],
        "test_openings": 1,
        "verdict": {**verdict, "days": 2},
        "sha256": "abc",
    }


def _windows(series: str) -> dict[str, Any]:
    fan = {model: [[1.0, 2.0, None] for _ in FAN] for model in ("best", "zero-shot")}
    window: dict[str, Any] = {
        "series": series,
        "start": "2024-01-01T00:00:00",
        "step_seconds": 3600.0,
        "past": [1.0],
        "forecasts": fan,
    }
    window |= {"actual": [1.0, None, 3.0], "loss": {"best": 0.1, "zero-shot": 0.2}}
    counts = {"counts": [1] * BINS, "mean": 0.5, "deviation": 2.0}
    edges = [float(edge) for edge in range(BINS + 1)]
    return {
        "levels": list(EVALUATION_LEVELS),
        "calibration": {model: list(EVALUATION_LEVELS) for model in MODELS},
        "residuals": {"unit": "data", "bins": edges, "models": dict.fromkeys(MODELS, counts)},
        "fan": list(FAN),
        "days": {"days": ["2024-01-01", "2024-01-02"], "challenger": [1.0, 2.0], "zero_shot": [1.5, 1.0]},
        "windows": [{**window, "role": role} for role in ("typical", "best", "worst", "against")],
    }


class Page(HTMLParser):
    """What a browser would make of a page: its elements, its text, and the JSON of its plots."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.plots: list[dict[str, Any]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Elements are closed in order."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Text, or a plot's JSON."""
        if self.open[-1:] == ["script"]:
            if "data-for" in self.elements[-1][1]:
                self.plots.append(json.loads(data))
        elif self.open[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a name."""
        return [attributes for name, attributes in self.elements if name == tag]
