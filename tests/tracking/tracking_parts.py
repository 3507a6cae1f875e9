"""A sweep's folder that no training made, an MLflow store to mirror it to, and a server that fails on demand."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import optuna

import chronotune
from chronotune.config.recipe import Recipe, Tracking
from chronotune.config.space import Hyperparameters
from chronotune.proposal import Proposal
from chronotune.study import Result, Study

if TYPE_CHECKING:
    from mlflow.entities import Run
    from werkzeug.serving import BaseWSGIServer

FULL = 576
SECRET = "sesame"


class FakeSweep:
    """A sweep's folder, written as the driver writes it."""

    def __init__(self, directory: Path, tracking_uri: str | None = None) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        recipe = _recipe(tracking_uri)
        attributes = {
            "recipe": recipe.model_dump(mode="json"),
            "identity": {"data": "d4ta", "ruler": "ru1er"},
            "trials": 4,
            "chronotune": "0.1.0",
            "created": "2026-01-02T03:04:05+00:00",
        }
        self.study = Study.create(directory, directory.name, attributes)

    def trial(self, *scores: float, end: str = "running") -> int:
        """A trial with these scores at 64, 192 and 576 windows, in the state `end`."""
        number = self.study.ask(Proposal(optuna.samplers.RandomSampler(seed=1), _draw)).number
        self.results(number, scores)
        if end == "failed":
            self.study.fail(number, "the loss is not finite")
        elif end != "running":
            self.study.finish(number, FULL)
        return number

    def results(self, number: int, scores: Iterable[float]) -> None:
        """Let a trial report these scores at 64, 192 and 576 windows."""
        for rung, score in enumerate(scores):
            windows = 64 * 3**rung
            told = {"seconds": 10.0 * (rung + 1), "steps": windows // 8, "device": "cpu"}
            self.study.record(number, Result(windows, score, {"sql": score, "mae": 2 * score, "train_loss": 3.0}, told))

    def finish(self, winner: int) -> None:
        """Name the winner, evaluate it and end, as the driver does after the last trial."""
        self.study.note("zero_shot", [_setting(96, 0.9), _setting(192, 0.8)])
        self.study.note("winner", {"number": winner, "windows_seen": FULL, "score": 0.5, "sha256": "abc", "bytes": 7})
        self.study.note("test_openings", ["2026-01-02T04:04:05+00:00"])
        rows = [_row("seasonal naive (24)", 1.0), _row("zero-shot", 0.8), _row("best", 0.5)]
        self.study.note("evaluation", {"windows": 73, "test_openings": 1, "rows": rows})
        (self.directory / "evaluation.json").write_text("{}")
        self.study.note("ended", "2026-01-02T05:04:05+00:00")


def whole_sweep(directory: Path, tracking_uri: str | None = None) -> FakeSweep:
    """A finished sweep: trial 0 failed, 1 was stopped early, 2 and 3 got their full budget, 3 won."""
    sweep = FakeSweep(directory, tracking_uri)
    sweep.trial(end="failed")
    sweep.trial(0.9, 0.85, end="pruned")
    sweep.trial(0.8, 0.7, 0.6, end="complete")
    sweep.trial(0.7, 0.5, 0.55, end="complete")
    sweep.finish(winner=3)
    return sweep


def _recipe(tracking_uri: str | None) -> Recipe:
    declared = {
        "name": "fake",
        "data": {"source": "solar", "time": "time", "target": "ghi", "known_future": ["etr"], "seasons": [24]},
        "horizon": 24,
        "model": {"name": "tiny", "weights": "tiny"},
        "search_space": {
            "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-3, "log": True},
            "windows": 8,
            "context_length": 96,
        },
        "budget": {"trials": 4, "windows": FULL},
        "early_stopping": {"grace": 64},
        "tracking": {"uri": tracking_uri},
        "cluster": {"name": "local"},
    }
    return Recipe.model_validate(declared)


def _draw(trial: optuna.Trial) -> Hyperparameters:
    rate = trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True)
    return Hyperparameters(
        learning_rate=rate, windows=8, accumulation=1, context_length=96, covariates="none", mode="full"
    )


def _setting(context: int, score: float) -> dict[str, Any]:
    return {"context_length": context, "covariates": "none", "metrics": {"sql": score, "mae": 2 * score}}


def _row(model: str, score: float) -> dict[str, Any]:
    return {"model": model, "context_length": 96, "covariates": "none", "sql": score, "mae": 2 * score}


@functools.cache
def first_contact() -> tuple[subprocess.CompletedProcess[str], Path]:
    """A process that mirrors a sweep to the default address of an empty folder, and that folder.

    MLflow's tables take seconds to create: once for all tests.
    """
    base = Path(tempfile.mkdtemp(prefix="chronotune-test-"))
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    (folder := base / "some folder").mkdir()
    program = (
        "import sys; from pathlib import Path; from chronotune.config.recipe import Tracking; "
        "from chronotune.tracking import Mirror; assert 'mlflow' not in sys.modules\n"
        "with Mirror(Path(sys.argv[1]), Tracking(experiment='first contact')) as mirror:\n"
        "    report = mirror.flush(timeout=100)\n"
        "assert report.trouble is None, report; assert report.uri.endswith('/mlflow.db'), report"
    )
    environment = {key: value for key, value in os.environ.items() if "MLFLOW" not in key}
    environment["PYTHONPATH"] = str(Path(chronotune.__file__).parents[1])
    command = [sys.executable, "-c", program, str(whole_sweep(base / "a sweep").directory)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False), folder


class Store:
    """An MLflow database in a folder, with nothing in the experiment `chronotune` yet."""

    def __init__(self, folder: Path) -> None:
        from mlflow import MlflowClient

        folder.mkdir(exist_ok=True)
        self.file = folder / "mlflow.db"
        shutil.copy(first_contact()[1] / "mlflow.db", self.file)
        self.uri = f"sqlite:///{self.file}"
        self.client = MlflowClient(tracking_uri=self.uri)

    @property
    def tracking(self) -> Tracking:
        """A recipe's tracking section that leads here."""
        return Tracking(uri=self.uri)

    def runs(self) -> dict[str, Run]:
        """All runs of the experiment that are not deleted, by name; two of one name fail."""
        experiment = self.client.get_experiment_by_name("chronotune")
        found = self.client.search_runs([experiment.experiment_id]) if experiment else []
        runs = {run.info.run_name: run for run in found}
        assert len(runs) == len(found)
        return runs

    def points(self) -> list[tuple[Any, ...]]:
        """Every metric value of every such run, as rows: run, metric, step, value, time."""
        query = (
            "select runs.name, metrics.key, step, value, timestamp from metrics join runs using (run_uuid) "
            "join experiments using (experiment_id) where experiments.name = 'chronotune' "
            "and runs.lifecycle_stage = 'active' order by 1, 2, 3, 4, 5"
        )
        with closing(sqlite3.connect(self.file)) as connection:
            return connection.execute(query).fetchall()


def _never(_: int) -> bool:
    return False


class Server:
    """MLflow's own server over a store, in a thread, with outages; a context manager.

    Args:
        store: What it serves.
        port: A fixed port, to come back where it was.
        before: Called before each request, with its number from 0; True lets it fail, unserved.
        after: The same after it was served: the answer is lost.
        status: What a request that fails is answered with.
    """

    def __init__(
        self,
        store: Store,
        port: int = 0,
        *,
        before: Callable[[int], bool] = _never,
        after: Callable[[int], bool] = _never,
        status: str = "500 INTERNAL SERVER ERROR",
    ) -> None:
        self._store, self._port, self._before, self._after = store, port, before, after
        self._status = status
        self.requests = 0
        self._http: BaseWSGIServer

    def __enter__(self) -> Self:
        """Listen."""
        import logging

        from mlflow.server import app, handlers
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        os.environ |= {
            "_MLFLOW_SERVER_FILE_STORE": self._store.uri,
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(self._store.file.parent / "served"),
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        }
        handlers._tracking_store = handlers._artifact_repo = None

        def flaky(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
            number, self.requests = self.requests, self.requests + 1
            if self._before(number):
                return _error(start, self._status)
            answer = app.wsgi_app(environ, (lambda *_: None) if self._after(number) else start)
            return _error(start, self._status) if self._after(number) else answer

        self._http = make_server("127.0.0.1", self._port, flaky, threaded=True)
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Refuse connections from now on."""
        import mlflow

        self._http.shutdown()
        self._http.server_close()
        mlflow.set_tracking_uri(None)  # the server sets it for its whole process
        for name in [name for name in os.environ if name.startswith("_MLFLOW_SERVER_")]:
            del os.environ[name]

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._http.port)

    @property
    def tracking(self) -> Tracking:
        """A recipe's tracking section that leads here."""
        return Tracking(uri=f"http://127.0.0.1:{self.port}")


def _error(start: Any, status: str) -> list[bytes]:
    """An answer in several lines, as proxies give it."""
    start(status, [("Content-Type", "text/html")])
    return [f"<html>\n<title>{status}</title>\n</html>".encode()]
