"""Where a sweep is mirrored to."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from chronotune.config.recipe import Tracking
from chronotune.errors import InputError
from chronotune.tracking import resolve_uri
from chronotune.tracking.address import masked


@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost:5000",
        "https://tracking.example/path",
        "postgresql+psycopg2://me@host/db",
        "databricks",
        "databricks://profile",
        "sqlite:////data/runs.db",
    ],
)
def test_absolute_addresses_stay(uri: str) -> None:
    """What names a server or an absolute file is taken as it is."""
    assert resolve_uri(Tracking(uri=uri)) == uri


def test_relative_files_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing, and relative files, mean this folder; an environment variable that MLflow users know comes between."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_uri(Tracking()) == f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve_uri(Tracking(uri="sqlite:///x/y.db?timeout=9")) == f"sqlite:///{tmp_path}/x/y.db?timeout=9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:1")
    assert resolve_uri(Tracking()) == "http://host:1"
    assert resolve_uri(Tracking(uri="http://host:2")) == "http://host:2"


@pytest.mark.parametrize(
    "uri", ["https://me:hunter2@tracking.example/path", "postgresql+psycopg2://me:hunter2@host/db"]
)
def test_a_password_is_refused_in_a_recipe(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would stay in recipe.yaml; in the environment it may be, and goes no further."""
    with pytest.raises(ValidationError, match="uri must hold no user and no password") as refusal:
        Tracking(uri=uri)
    assert "hunter2" not in str([error["msg"] for error in refusal.value.errors()])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert resolve_uri(Tracking()) == uri


@pytest.mark.parametrize(
    "uri", ["mlruns", "./mlruns", "file:///runs", "localhost:5000", "htp://x", "sqlite://", "http://[x"]
)
def test_anything_else_is_refused(uri: str) -> None:
    """A folder of files, a host without http and a typo are the user's mistake, said before anything runs."""
    with pytest.raises(InputError, match="Write http://HOST:PORT or sqlite:///FILE") as refusal:
        resolve_uri(Tracking(uri=uri))
    assert repr(uri) in str(refusal.value)


def test_credentials_are_masked() -> None:
    """User, password and query are not shown."""
    assert masked("https://me:a@b:c@host:1/path?password=x") == "https://***@host:1/path?***"
    assert masked("sqlite:////home/me@work/mlflow.db") == "sqlite:////home/me@work/mlflow.db"
