"""What a sweep looks like in MLflow: one parent run and one child a trial, as values made from a reading of the study.

The finalists' repeats are children too, named and tagged as such.

Every value here is a function of the study alone, times included, so that any number of mirrors write the same thing.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeAlias

from chronotune.study import Reading, Result, TrialRecord, winner
from chronotune.tracking.address import masked

SWEEP = "sweep"
"""Key of the parent run; a child's key is its trial number, that of a finalist's repeat `finalist-` and its number."""
ARTIFACTS = (
    "recipe.yaml",
    "evaluation.json",
    "segments.json",
    "report.html",
    "winner/recipe.yaml",
    "winner/preset.yaml",
    "refitted/recipe.yaml",
    "refitted/preset.yaml",
)

Status: TypeAlias = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
_LONGEST_PARAM, _LONGEST_TAG = 6000, 5000  # characters that MLflow takes
_SOURCE = {"mlflow.source.name": "chronotune"}
_PLAIN_KEY = re.compile(r"[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Point:
    """One value of one metric."""

    key: str
    value: float
    step: int
    milliseconds: int
    """Since the epoch. Part of a metric's identity in MLflow, so it too comes from the study."""


@dataclass(frozen=True)
class MirroredRun:
    """One MLflow run as it should be."""

    key: str
    name: str
    status: Status
    started: int
    """Milliseconds since the epoch."""
    ended: int | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    """Metrics by a label that names what was measured; what bears a label never changes, and is written once."""


def sweep_id(reading: Reading) -> str:
    """What tells a sweep from every other one, wherever its folder is moved: its name and how it was created."""
    created = [reading.name, reading.attributes.get("created"), reading.attributes.get("identity")]
    return _digest(json.dumps(created, sort_keys=True))


def runs_of(
    reading: Reading, directory: Path, driven: bool, known: Mapping[str, TrialRecord] | None = None
) -> list[MirroredRun]:
    """The children by trial number, the finalists' repeats, then the parent: its end is written when all of them are.

    Args:
        reading: The sweep's study.
        directory: The sweep's folder, where the weights stay.
        driven: Whether some process drives the sweep now. If not, what still runs in the study was killed.
        known: By key, trials whose runs are left out unless they have changed.
    """
    alive = driven and not reading.attributes.get("ended")
    weights, known = _weights(reading, directory), known or {}
    trials = [trial for trial in (*reading.trials, *reading.finalists) if known.get(key_of(trial)) != trial]
    return [*(_child(trial, alive, weights) for trial in trials), _parent(reading, alive, weights)]


def key_of(trial: TrialRecord) -> str:
    """What names a trial's run among those of its sweep."""
    return str(trial.number) if trial.of is None else f"finalist-{trial.number}"


def stamps_of(directory: Path) -> dict[str, tuple[int, int]]:
    """When those files were written and how long they are, by path: enough to tell whether one is another now."""
    found = {name: directory / name for name in ARTIFACTS}
    stats = {name: path.stat() for name, path in found.items() if path.is_file()}
    return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in stats.items()}


def artifacts_of(reading: Reading, directory: Path) -> dict[str, str]:
    """The small text files that go with the parent, by path; credentials in the tracking URI are masked."""
    uri = (reading.attributes.get("recipe") or {}).get("tracking", {}).get("uri") or ""
    present = [name for name in ARTIFACTS if (directory / name).is_file()]
    return {name: (directory / name).read_text(encoding="utf-8").replace(uri, masked(uri)) for name in present}


def _child(trial: TrialRecord, alive: bool, weights: Mapping[int, Mapping[str, str]]) -> MirroredRun:
    state = "interrupted" if trial.state == "running" and not alive else trial.state
    status: dict[str, Status] = {"running": "RUNNING", "failed": "FAILED", "interrupted": "KILLED"}
    attributes = trial.results[-1].attributes if trial.results else {}
    tags = {
        **_SOURCE,
        "chronotune.state": state,
        "chronotune.windows_seen": trial.windows_seen,
        "chronotune.device": attributes.get("device"),
        "chronotune.reason": trial.reason,
        "chronotune.finalist": trial.of,
        "chronotune.seed": trial.seed,
        **(weights.get(trial.number, {}) if trial.of is None else {}),
    }
    point = trial.hyperparameters.model_dump(exclude_none=True) if trial.hyperparameters else {}
    return MirroredRun(
        key=key_of(trial),
        name=f"trial {trial.number:04d}" if trial.of is None else f"trial {trial.of:04d}, seed {trial.seed}",
        status=status.get(state, "FINISHED"),
        started=_milliseconds(trial.started),
        ended=None if state == "running" else _milliseconds(_last_sign(trial)),
        params=flatten(point),
        tags=_tags(tags),
        points={str(result.windows_seen): _measured(trial, result) for result in trial.results},
    )


def _parent(reading: Reading, alive: bool, weights: Mapping[int, Mapping[str, str]]) -> MirroredRun:
    attributes, ended = reading.attributes, _moment(reading.attributes.get("ended"))
    identity = attributes.get("identity") or {}
    state = "running" if alive else "ended" if ended else "failed" if _all_failed(reading) else "interrupted"
    status: dict[str, Status] = {"running": "RUNNING", "ended": "FINISHED", "failed": "FAILED"}
    tags = {
        **_SOURCE,
        "chronotune.state": state,
        "chronotune.version": attributes.get("chronotune"),
        "chronotune.trials": attributes.get("trials"),
        "chronotune.verdict": ((reading.evaluation or {}).get("verdict") or {}).get("decision"),
        **{f"chronotune.fingerprint.{key}": value for key, value in identity.items()},
        **{key: value for chosen in weights.values() for key, value in chosen.items()},
    }
    signs = [moment for trial in (*reading.trials, *reading.finalists) if (moment := _last_sign(trial))]
    started = _started(reading)
    return MirroredRun(
        key=SWEEP,
        name=reading.name,
        status=status.get(state, "KILLED"),
        started=_milliseconds(started),
        ended=None if alive else _milliseconds(ended or max(signs, default=started)),
        params=flatten(_without_secrets(attributes.get("recipe") or {})),
        tags=_tags(tags),
        points={
            **_zero_shot(reading, started),
            **_best_so_far(reading.trials),
            **_decided(attributes, started),
            **_test(reading, started),
        },
    )


def flatten(node: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Nested mappings as MLflow params with dotted keys; lists, and mappings with unusual keys, stay whole as JSON.

    What is None or empty is left out, and values are cut at the length that MLflow takes.
    """
    params: dict[str, str] = {}
    for key, value in node.items():
        if isinstance(value, Mapping) and all(_PLAIN_KEY.fullmatch(str(name)) for name in value):
            params |= flatten(value, f"{path}{key}.")
        elif value is not None and value != []:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            params[f"{path}{key}"] = text[:_LONGEST_PARAM]
    return params


def _without_secrets(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    tracking = recipe.get("tracking") or {}
    return {**recipe, "tracking": {**tracking, "uri": masked(tracking["uri"]) if tracking.get("uri") else None}}


def _measured(trial: TrialRecord, result: Result) -> list[Point]:
    """All that one result holds, at the moment at which the trial's own clock places it."""
    spent = {key: result.attributes[key] for key in ("seconds", "steps") if key in result.attributes}
    moment = _after(trial.started, spent.get("seconds", 0))
    return list(_points({**result.metrics, **spent}, result.windows_seen, moment))


def _zero_shot(reading: Reading, started: datetime | None) -> dict[str, list[Point]]:
    """The untouched model in its best setting, as leaderboards show it."""
    scored = reading.attributes.get("zero_shot")
    if not scored or reading.zero_shot is None:
        return {}
    metrics = reading.zero_shot["metrics"]
    return {f"zero_shot:{_digest(scored)}": list(_points(metrics, len(scored), started, "zero_shot."))}


def _best_so_far(trials: Iterable[TrialRecord]) -> dict[str, list[Point]]:
    """The metrics of the search's best each time that it was another trial; the step is the number of ended trials."""
    points: dict[str, list[Point]] = {}
    best: TrialRecord | None = None
    ended = sorted((trial for trial in trials if trial.ended), key=lambda t: (_milliseconds(t.ended), t.number))
    for count, trial in enumerate(ended, start=1):
        if trial.best and winner([*([best] if best else []), trial]) is trial:
            best = trial
            points[f"best:{trial.number}"] = list(_points(trial.best.metrics, count, trial.ended, "best."))
    return points


def _decided(attributes: Mapping[str, Any], started: datetime | None) -> dict[str, list[Point]]:
    """What was exported, as `winner.score` and, over the seeds of a finalist, `winner.mean` and `winner.spread`."""
    noted = attributes.get("winner") or {}
    told = {key: noted[key] for key in ("score", "mean", "spread") if isinstance(noted.get(key), float)}
    return {f"winner:{_digest(told)}": list(_points(told, noted["number"], started, "winner."))} if told else {}


def _test(reading: Reading, started: datetime | None) -> dict[str, list[Point]]:
    """The evaluation's rows as `test.zero_shot.sql`, `test.best.sql` and so on; the step counts the openings."""
    evaluation, openings = reading.evaluation, reading.attributes.get("test_openings") or []
    if not evaluation:
        return {}
    moment = _moment(openings[-1]) if openings else started
    points = [
        point
        for row in evaluation["rows"]
        for point in _points(_scores(row), max(1, len(openings)), moment, f"test.{_word(row['model'])}.")
    ]
    return {f"test:{_digest(evaluation)}": points}


def _scores(row: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in row.items() if isinstance(value, float)}


def _word(name: str) -> str:
    return re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_")


def _points(metrics: Mapping[str, float], step: int, moment: datetime | None, prefix: str = "") -> Iterator[Point]:
    for key, value in metrics.items():
        # MLflow would store infinity as 1.8e308, which ruins a chart's scale
        number = float(value) if math.isfinite(value) else math.nan
        yield Point(f"{prefix}{key}", number, step, _milliseconds(moment))


def _weights(reading: Reading, directory: Path) -> dict[int, dict[str, str]]:
    """Tags of the winner by its number; empty before it is named. The weights themselves stay local."""
    chosen = reading.attributes.get("winner")
    if not chosen:
        return {}
    told = {**chosen, "path": directory / "winner"}
    return {chosen["number"]: _tags({f"chronotune.winner.{key}": value for key, value in told.items()})}


def _tags(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value)[:_LONGEST_TAG] for key, value in values.items() if value is not None}


def _all_failed(reading: Reading) -> bool:
    """Whether the sweep did all that was wanted and no trial reached its full budget."""
    wanted, states = reading.attributes.get("trials") or 1, {trial.state for trial in reading.trials}
    return len(reading.trials) >= wanted and not states & {"running", "complete"}


def _last_sign(trial: TrialRecord) -> datetime | None:
    """When a trial ended, or the last that is known of it."""
    last = trial.results[-1].attributes.get("seconds", 0) if trial.results else 0
    return trial.ended or _after(trial.started, last)


def _started(reading: Reading) -> datetime | None:
    moments = [_moment(reading.attributes.get("created")), *(trial.started for trial in reading.trials)]
    return min((moment for moment in moments if moment), default=None)


def _after(moment: datetime | None, seconds: float) -> datetime | None:
    return moment + timedelta(seconds=seconds) if moment else None


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def _milliseconds(moment: datetime | None) -> int:
    return round(moment.timestamp() * 1000) if moment else 0


def _digest(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
