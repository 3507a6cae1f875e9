"""The runs of one sweep on MLflow's side: found by their tags or created, and brought to what they should be.

The only importer of mlflow, inside functions: it takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from chronotune.errors import InputError
from chronotune.tracking.address import database
from chronotune.tracking.content import SWEEP, MirroredRun

if TYPE_CHECKING:
    from mlflow.entities import Run

_SWEEP_TAG, _RUN_TAG, _PARENT_TAG = "chronotune.sweep", "chronotune.run", "mlflow.parentRunId"
_LOGGED_TAG, _ARTIFACTS_TAG = "chronotune.logged", "chronotune.artifacts"
_OURS = {_SWEEP_TAG, _RUN_TAG, _LOGGED_TAG, _ARTIFACTS_TAG}
_PARAMS, _METRICS = 100, 800  # a batch takes 100 params, 100 tags, and 1000 of all together

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # by itself it would block one call for minutes; the mirror comes back
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass
class _Known:
    """What MLflow is known to hold of one run."""

    run_id: str
    status: str
    ended: int | None
    params: set[str]
    tags: dict[str, str]

    @classmethod
    def of(cls, run: Run) -> _Known:
        info = run.info
        return cls(info.run_id, info.status, info.end_time, set(run.data.params), dict(run.data.tags))


class Runs:
    """One sweep's runs in an experiment. After an exception throw it away: a new one looks at what is there.

    Args:
        uri: An absolute tracking URI.
        experiment: Its name; created when there is none.
        sweep: The identity of the sweep, a tag of all of its runs.
    """

    def __init__(self, uri: str, experiment: str, sweep: str) -> None:
        from mlflow import MlflowClient

        with quiet():
            self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            self._experiment, self._sweep = _experiment(self._client, uri, experiment), sweep
            self._known = {known.tags.get(_RUN_TAG, ""): known for known in reversed(self._find())}

    @property
    def client(self) -> Any:
        """MLflow's, for the same address."""
        return self._client

    @property
    def parent(self) -> str:
        """The id of the sweep's own run, which must be there."""
        return self._known[SWEEP].run_id

    def bring(self, run: MirroredRun) -> int:
        """Write what a run lacks, and only that.

        Returns:
            How many metric values were written.
        """
        known = self._known.get(run.key) or self._adopt(run)
        logged = known.tags.get(_LOGGED_TAG, "").split()
        new = [label for label in run.points if label not in logged]
        tags = self._own_tags(run) | ({_LOGGED_TAG: " ".join([*logged, *new])} if new else {})
        params = {key: value for key, value in run.params.items() if key not in known.params}
        points = [point for label in new for point in run.points[label]]
        self._log(known, params, points, {key: tags[key] for key in tags if known.tags.get(key) != tags[key]})
        self._drop_tags(known, run)
        self._set_status(known, run)
        return len(points)

    def adopt(self, run: MirroredRun) -> None:
        """Make sure that a run exists."""
        if run.key not in self._known:
            self._adopt(run)

    def attach(self, key: str, texts: Mapping[str, str]) -> None:
        """Write text artifacts of a run, those that changed."""
        known = self._known[key]
        there: dict[str, str] = json.loads(known.tags.get(_ARTIFACTS_TAG, "{}"))
        wanted = {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}
        changed = [name for name in texts if there.get(name) != wanted[name]]
        for name in changed:
            self._client.log_text(known.run_id, texts[name], name)
        if changed:
            self._log(known, {}, [], {_ARTIFACTS_TAG: json.dumps({**there, **wanted})})

    def _own_tags(self, run: MirroredRun) -> dict[str, str]:
        parent = {} if run.key == SWEEP else {_PARENT_TAG: self._known[SWEEP].run_id}
        return {**run.tags, **parent, _SWEEP_TAG: self._sweep, _RUN_TAG: run.key}

    def _adopt(self, run: MirroredRun) -> _Known:
        """Find or create a run. Of mirrors that create it at the same time, at most one keeps what it created."""
        for _ in range(5):
            if found := self._find(run.key):
                return self._known.setdefault(run.key, found[0])
            created = self._client.create_run(self._experiment, run.started, self._own_tags(run), run.name)
            if [known.run_id for known in self._find(run.key)] == [created.info.run_id]:
                return self._known.setdefault(run.key, _Known.of(created))
            self._client.delete_run(created.info.run_id)
            time.sleep(random.uniform(0, 0.5))
        raise TimeoutError(f"other mirrors keep creating run {run.name}")

    def _find(self, key: str | None = None) -> list[_Known]:
        """This sweep's runs, or those of one key, in an order that is the same for everybody."""
        wanted = {_SWEEP_TAG: self._sweep} | ({_RUN_TAG: key} if key else {})
        condition = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in wanted.items())
        found: list[Run] = []
        token: str | None = None
        while page := self._client.search_runs([self._experiment], condition, page_token=token):
            found += page
            if not (token := page.token):
                break
        return sorted(map(_Known.of, found), key=lambda known: known.run_id)

    def _log(self, known: _Known, params: Mapping[str, str], points: list[Any], tags: Mapping[str, str]) -> None:
        """Write in batches, the tags last: they say that the rest is there."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(point.key, point.value, point.milliseconds, point.step) for point in points]
        items = [Param(key, value) for key, value in params.items()]
        labels = [RunTag(key, value) for key, value in tags.items()]
        while metrics or items or labels:
            last = len(metrics) <= _METRICS and len(items) <= _PARAMS
            batch = (metrics[:_METRICS], items[:_PARAMS], labels if last else [])
            self._client.log_batch(known.run_id, *batch, synchronous=True)
            metrics, items, labels = metrics[_METRICS:], items[_PARAMS:], [] if last else labels
        known.params |= params.keys()
        known.tags |= tags

    def _drop_tags(self, known: _Known, run: MirroredRun) -> None:
        """Remove what no longer holds: the reason of a stop that was resumed, the marks of a former winner."""
        for key in [key for key in known.tags if key.startswith("chronotune.") and key not in {*run.tags, *_OURS}]:
            self._client.delete_tag(known.run_id, key)
            del known.tags[key]

    def _set_status(self, known: _Known, run: MirroredRun) -> None:
        if run.status == "RUNNING" == known.status or (known.status, known.ended) == (run.status, run.ended):
            return
        if run.status == "RUNNING":
            self._client.update_run(known.run_id, status="RUNNING")
        else:
            self._client.set_terminated(known.run_id, run.status, run.ended)
        known.status, known.ended = run.status, run.ended


def _experiment(client: Any, uri: str, name: str) -> str:
    """The id of an experiment; a new one in an SQLite file keeps its artifacts beside that file."""
    if found := client.get_experiment_by_name(name):
        if found.lifecycle_stage == "deleted":
            raise InputError(
                f"the experiment {name!r} is deleted there; restore it (mlflow experiments restore "
                f"-x {found.experiment_id}), or name another with tracking.experiment"
            )
        return str(found.experiment_id)
    file = database(uri)
    return str(client.create_experiment(name, str(file.parent / "mlruns" / quote(name, safe="")) if file else None))


def prepare_environment() -> None:
    """Tell MLflow how to behave in this process, where the user has not; best before other threads read it."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def patient() -> Iterator[None]:
    """Requests of this process may take minutes, for weights are large; what the user has set holds."""
    name, minutes = "MLFLOW_HTTP_REQUEST_TIMEOUT", "600"
    ours = os.environ.get(name) == _ENVIRONMENT[name]
    if ours:
        os.environ[name] = minutes
    try:
        yield
    finally:
        if ours:
            os.environ[name] = _ENVIRONMENT[name]


@contextmanager
def quiet() -> Iterator[None]:
    """What MLflow logs from this thread goes nowhere; other threads are untouched."""
    here = threading.get_ident()
    handlers = {handler for name in ("mlflow", "alembic") for handler in logging.getLogger(name).handlers}

    def elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != here

    for handler in handlers:
        handler.addFilter(elsewhere)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(elsewhere)
