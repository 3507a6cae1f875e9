"""Where a study is kept when not in the sweep's folder, and where it is mirrored to: addresses without passwords."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from chronotune.config.base import Breach
from chronotune.config.secrets import VARIABLE, holds_credentials, holds_password, masked
from chronotune.errors import Fault, InputError

SQLITE = re.compile(r"sqlite(\+\w+)?:///(?P<path>[^?]+)(\?.*)?")
POSTGRESQL = re.compile(r"postgresql(\+\w+)?://")


def bad_storage(url: str | None) -> Iterator[Breach]:
    """What is wrong with the key `storage`: it is no database's address, or holds a password."""
    if url is None:
        return
    if not SQLITE.fullmatch(url) and not POSTGRESQL.match(url):
        rule = f"must be a database's address, but is {masked(url)!r}"
        remedy = "Write sqlite:///FILE.db or postgresql+psycopg://USER@HOST/NAME, or null for study.journal"
        yield Breach(("storage",), rule, remedy)
    elif holds_password(url):
        rule = "must not hold a password, which would stay in recipe.yaml and in MLflow, but does"
        remedy = "Write ${VARIABLE} in its place, or leave it out and set PGPASSWORD or PGPASSFILE"
        yield Breach(("storage",), rule, remedy)


def bad_tracking(uri: str | None) -> Iterator[Breach]:
    """What is wrong with the key `tracking.uri`: it holds credentials."""
    literal = holds_credentials if (uri or "").startswith(("http://", "https://")) else holds_password
    if uri and literal(uri):
        rule = "must hold no user and no password, which would stay in files, logs and the list of processes, but does"
        remedy = (
            "Leave them out, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or PGPASSWORD, "
            "or the whole address in MLFLOW_TRACKING_URI, where the sweep is driven"
        )
        yield Breach(("uri",), rule, remedy)


def expanded(url: str, environment: Mapping[str, str] = os.environ) -> str:
    """The address with each `${VARIABLE}` replaced by its value, quoted: it stands for one part, e.g. the password.

    Raises:
        InputError: A variable is not set.
    """
    missing = [name for name in VARIABLE.findall(url) if name not in environment]
    if missing:
        rule = f"names the variable {missing[0]}, which is not set"
        raise InputError([Fault("environment", "storage", rule, f"Set it: export {missing[0]}=...")])
    return VARIABLE.sub(lambda found: quote(environment[found["name"]], safe=""), url)


def absolute(url: str | None) -> str | None:
    """The address, with the path of an SQLite file made absolute."""
    found = SQLITE.fullmatch(url) if url else None
    if not url or not found or VARIABLE.match(found["path"]):
        return url
    return f"{url[: found.start('path')]}{Path(found['path']).absolute()}{url[found.end('path') :]}"


def file_of(url: str) -> Path | None:
    """The file of an SQLite address; None for any other."""
    found = SQLITE.fullmatch(url)
    return Path(found["path"]) if found else None
