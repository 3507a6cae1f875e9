"""`optuna-dashboard` reads a sweep's journal, beside its writer, and writes nothing.

The same with its server beside a real sweep: `python tests/faults/faults.py --only dashboard`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest

from chronotune.study import JOURNAL
from sweep_parts import ask, new_study, result

optuna_dashboard = pytest.importorskip("optuna_dashboard")


def get(app: Any, path: str) -> Any:
    """What the dashboard answers, as JSON."""
    environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": "after=0"}
    setup_testing_defaults(environ)
    statuses: list[str] = []
    body = b"".join(app(environ, lambda status, *_: statuses.append(status)))
    assert statuses == ["200 OK"], body
    return json.loads(body)


def test_the_dashboard_follows_a_journal_and_leaves_it_alone(tmp_path: Path) -> None:
    """It sees what is written after it began: curves, states and values; it changes no byte and takes no lock."""
    study = new_study(tmp_path)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL))
    app = optuna_dashboard.wsgi(optuna.storages.JournalStorage(backend))
    [summary] = get(app, "/api/studies")["study_summaries"]
    assert summary["study_name"] == "small"
    path = f"/api/studies/{summary['study_id']}"
    first, second = ask(study), ask(study)
    for windows, score in ((3, 0.5), (27, 0.4)):
        study.record(first, result(windows, score))
    study.finish(first, 27)
    study.record(second, result(3, 0.9))
    study.finish(second, 27)
    written = (tmp_path / JOURNAL).read_bytes()
    trials = get(app, path)["trials"]
    assert [(trial["state"], trial["values"]) for trial in trials] == [("Complete", [0.4]), ("Pruned", [0.9])]
    assert [[point["step"] for point in trial["intermediate_values"]] for trial in trials] == [[3, 27], [3]]
    get(app, f"{path}/param_importances")
    assert (tmp_path / JOURNAL).read_bytes() == written
    assert not list(tmp_path.glob(f"{JOURNAL}.lock*"))
