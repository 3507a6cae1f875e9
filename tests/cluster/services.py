"""What a sweep on a cluster may lean on, each a real server of its own: S3-compatible store, PostgreSQL, MLflow."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import urllib.request
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

from machines import free_ports

sys.path.append(str(Path(__file__).parents[1]))  # this is a script's folder: the tests' helpers are above it
from mlflow_parts import NoServerError, mlflow_server
from objects_parts import BUCKET, Objects
from postgres_parts import server_or_reason

EXPERIMENT = "chronotune"


@dataclass
class Services:
    """A context manager: whatever was started is ended, by its process id.

    Raises:
        SystemExit: One of them cannot be had here.
    """

    place: Path
    """Logs, MLflow's database and what it serves."""
    password: str = field(default_factory=lambda: secrets.token_hex(20))
    """Of the database."""
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        """Start all three; they answer when this returns."""
        database = server_or_reason()
        if isinstance(database, str):
            raise SystemExit(database)
        try:
            database.password, self.database = self.password, database.place
            self._stack.enter_context(patch.dict(os.environ, PGPASSWORD=self.password))
            self.storage = self._stack.enter_context(database).new_database()
            self.objects = self._stack.enter_context(Objects(self.place))
            self._start_mlflow(*free_ports(1))
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start_mlflow(self, port: int) -> None:
        self.tracking = f"http://127.0.0.1:{port}"
        try:
            self._stack.enter_context(mlflow_server(self.place, port))
        except NoServerError as error:
            raise SystemExit(str(error)) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them."""
        self._stack.close()

    @property
    def variables(self) -> dict[str, str]:
        """Environment of nodes: where the store is, its key, and the database's password, which no recipe holds."""
        return {**self.objects.variables, "PGPASSWORD": self.password}

    @property
    def settings(self) -> tuple[str, ...]:
        """Of a recipe that uses all three."""
        tracking = ("tracking.enabled=true", f"tracking.uri={self.tracking}", f"tracking.experiment={EXPERIMENT}")
        return (f"storage={self.storage}", f"cluster.checkpoints=s3://{BUCKET}", *tracking)

    def studies(self) -> list[str]:
        """Names of the studies in the database."""
        import optuna

        return sorted(optuna.get_all_study_names(self.storage))

    def runs(self) -> list[tuple[str, str]]:
        """What each of MLflow's runs is, by our tag (`sweep`, or a trial), and its status."""
        body = {"experiment_ids": [self._experiment()], "max_results": 1000}
        found = self._ask("runs/search", body).get("runs", [])
        tags = [{tag["key"]: tag["value"] for tag in run["data"]["tags"]} for run in found]
        return [(tag.get("chronotune.run", ""), run["info"]["status"]) for tag, run in zip(tags, found, strict=True)]

    def _experiment(self) -> str:
        found = self._ask(f"experiments/get-by-name?experiment_name={EXPERIMENT}")
        return str(found["experiment"]["experiment_id"])

    def _ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.tracking}/api/2.0/mlflow/{path}", data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


def faults_of_store(objects: list[str], directory: Path, winner: str) -> list[str]:
    """What is wrong with the checkpoints of an ended sweep.

    Args:
        objects: Paths in the bucket, below the sweep's place.
        directory: The sweep's folder.
        winner: The key of the winner's checkpoint.
    """
    local = ["checkpoints lie in the sweep's folder"] if (directory / "checkpoints").exists() else []
    lost = [] if f"{winner}/meta.json" in objects else [f"the winner's checkpoint {winner} is not in the bucket"]
    return [*local, *lost, *(f"{path} is left in the bucket" for path in objects if path.startswith(".tune"))]


def faults_of_runs(runs: list[tuple[str, str]], trials: int) -> list[str]:
    """What is wrong with MLflow's runs of an ended sweep: each trial once, the sweep's own once, all ended."""
    names = Counter(name for name, _ in runs)
    twice = [f"MLflow has {name} {count} times" for name, count in names.items() if count > 1]
    running = [f"MLflow's {name} is {status}" for name, status in runs if status == "RUNNING"]
    count = f"MLflow has {len(names)} runs, not those of {trials} trials and 1 sweep"
    wrong = [] if len(names) == trials + 1 else [count]
    return [*wrong, *twice, *running]
