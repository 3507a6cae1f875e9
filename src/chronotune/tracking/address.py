"""Where a sweep is mirrored to."""

from __future__ import annotations

import os
import re
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from chronotune.config.recipe import Tracking
from chronotune.config.secrets import masked
from chronotune.errors import Fault, InputError

__all__ = ["database", "masked", "resolve_uri"]

_SERVERS = {"http", "https", "postgresql", "mysql", "mssql", "databricks"}
_SQLITE = re.compile(r"(?P<scheme>sqlite(\+\w+)?):///(?P<path>[^?]+)(?P<query>\?.*)?")


def resolve_uri(tracking: Tracking) -> str:
    """Where the mirror goes: `tracking.uri`, else MLFLOW_TRACKING_URI, else MLflow's own default in this folder.

    A relative SQLite path is made absolute, so that it means the same file whatever becomes of the working directory.

    Raises:
        InputError: MLflow keeps no runs at such an address; its folders of files are refused by MLflow itself.
    """
    uri = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if found := _SQLITE.fullmatch(uri):
        return f"{found['scheme']}:///{Path(found['path']).absolute()}{found['query'] or ''}"
    if _is_served(uri):
        return uri
    rule = f"runs are kept by a server or in a database, but {masked(uri)!r} is the address of neither"
    remedy = "Write http://HOST:PORT or sqlite:///FILE.db, or leave it out: mlflow.db in this folder"
    key = "tracking.uri" if tracking.uri else "MLFLOW_TRACKING_URI"
    raise InputError([Fault("recipe" if tracking.uri else "environment", key, rule, remedy)])


def database(uri: str) -> Path | None:
    """The file of an SQLite address as `resolve_uri` gives it; None for any other address."""
    found = _SQLITE.fullmatch(uri)
    return Path(found["path"]) if found else None


def _is_served(uri: str) -> bool:
    if uri == "databricks":
        return True
    try:
        scheme, host = urlsplit(uri)[:2]
    except ValueError:
        return False
    plugins = {point.name for point in entry_points(group="mlflow.tracking_store")}
    return bool(host) and scheme.partition("+")[0] in _SERVERS | plugins
