"""Where a study is kept: in `study.journal` of the sweep's folder, or in a database that its `study.json` names.

A journal is repaired after a crash. A database needs none: its transactions are whole or not there.
The lease stays in the folder: two hosts that see one folder are kept apart, but whoever copies a folder and resumes
both drives one study twice.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from shlex import quote
from typing import Any, ParamSpec, TypeAlias, TypeVar

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from chronotune.config.secrets import masked
from chronotune.config.storage import POSTGRESQL, expanded, file_of
from chronotune.errors import ChronotuneError, InputError
from chronotune.journal import Journal
from chronotune.lease import other_driver
from chronotune.records import FINALISTS

JOURNAL = "study.journal"
ADDRESS = "study.json"
"""Names the database and the study in it, where there is no journal."""

PATIENCE_SECONDS = float(os.environ.get("CHRONOTUNE_STUDY_PATIENCE", "300"))
"""How long a driver waits for a database that does not answer any more, e.g. while its server is restarted."""
_CONNECT_SECONDS = 10
_GO_ON = "What was recorded is in it; when it answers, `chronotune resume DIR` goes on"
_LOCKED_SECONDS = 60  # that an SQLite file may be locked by another process

_P = ParamSpec("_P")
_T = TypeVar("_T")
Address: TypeAlias = dict[str, str]
"""`storage`: an address as the recipe has it; `name`: the study's."""

log = logging.getLogger("chronotune.storage")


def is_sweep(directory: Path) -> bool:
    """Whether a folder is a sweep's: whether it holds, or names, a study."""
    return (directory / JOURNAL).exists() or (directory / ADDRESS).exists()


def address_of(directory: Path) -> Address | None:
    """The database that a sweep's study is in; None when it is in the folder's journal."""
    path = directory / ADDRESS
    if not path.exists():
        return None
    try:
        address: Address = json.loads(path.read_text(encoding="utf-8"))
        return {key: address[key] for key in ("storage", "name")}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: must name `storage` and `name` of the sweep's study, but cannot be read ({error!r}). "
            f"Write them again: storage as in recipe.yaml, and the study's name in the database"
        ) from error


def second_name(name: str) -> str:
    """What the study of a sweep's finalists is called."""
    return f"{name}/{FINALISTS}"


def refuse_taken(url: str | None, name: str) -> None:
    """Do nothing when a new sweep of this name can be begun in a database, which must answer now.

    Raises:
        InputError: Its name or its finalists' is taken, the database's driver is missing, a variable is not set, or
            the folder of an SQLite file is not there or cannot be written.
        ChronotuneError: The database does not answer.
    """
    if url is None:
        return
    _refuse_no_folder(url)
    with explained(url, "Nothing was begun; run it again when it answers"):
        storage = _database(url, skip_table_creation=False)
        taken = _studies(storage, name)
        storage.remove_session()
    if taken:
        raise InputError(
            f"{name}: a study is named as its sweep's folder, but {masked(url)} holds {' and '.join(taken)}. Choose "
            f"another folder with --dir, or remove what is there: {removal(url, taken)}"
        )


def _refuse_no_folder(url: str) -> None:
    """SQLite makes a file and its journal, but no folder."""
    if (file := file_of(expanded(url))) is None:
        return
    if not file.parent.is_dir():
        raise InputError(
            f"storage: an SQLite file needs a folder, but {file.parent} is none. "
            f"Make it: mkdir -p {quote(str(file.parent))}, or name another file"
        )
    if locked := [place for place in (file.parent, file) if place.exists() and not os.access(place, os.W_OK)]:
        raise InputError(
            f"storage: an SQLite file and its folder must be writable, but {locked[0]} is not. "
            f"Change its rights, or name another file"
        )


def _studies(storage: BaseStorage, name: str) -> list[str]:
    """Names of those studies of a sweep that a database holds: the searched one, and the finalists'."""
    held = {study.study_name for study in storage.get_all_studies()}
    return [own for own in (name, second_name(name)) if own in held]


def begin(directory: Path, url: str | None, name: str) -> BaseStorage:
    """The storage of a new sweep; that of a database is noted in the folder first."""
    if url is None:
        return _journal(directory)
    (directory / ADDRESS).write_text(json.dumps({"storage": url, "name": name}, indent=2) + "\n", encoding="utf-8")
    return _patient(url)


def reopen(directory: Path) -> BaseStorage:
    """The storage of a sweep, for its driver: a journal repaired, a database that may pause.

    Raises:
        InputError: The folder holds no sweep, or its database's file is gone.
        ChronotuneError: The database does not answer.
    """
    _refuse_none(directory)
    repair(directory)
    address = address_of(directory)
    return _patient(address["storage"]) if address else _journal(directory)


def look(directory: Path) -> BaseStorage:
    """The storage of a sweep, for a reader, who does not wait.

    Raises:
        InputError: The folder holds no sweep, or its database's file is gone.
        ChronotuneError: The database does not answer.
    """
    _refuse_none(directory)
    if (address := address_of(directory)) is None:
        return _journal(directory)
    with explained(address["storage"]):
        return optuna.storages.get_storage(_database(address["storage"]))


def _refuse_none(directory: Path) -> None:
    if not is_sweep(directory):
        names = {path.name for path in directory.glob("*")}
        leases = {name for name in names if name.startswith("lease.")}
        if leases and names <= {"recipe.yaml", *leases}:
            raise unbegun(directory)
        raise InputError(f"{directory}: a sweep's folder holds {JOURNAL}, but this one does not. See `chronotune ls`")
    address = address_of(directory)
    if address and (file := file_of(expanded(address["storage"]))) and not file.exists():
        raise InputError(f"{directory}: its study is in {file}, but there is no such file. Put it back")


def unbegun(directory: Path) -> InputError:
    """Says of a sweep without a study whether there will be one, and what to do."""
    alive = other_driver(directory) is not None
    remedy = "Look again in a moment" if alive else "Remove the folder and run the sweep again"
    return InputError(f"{directory}: the study {'is only just beginning' if alive else 'was never begun'}. {remedy}")


def where(directory: Path) -> str:
    """What to call the place of a sweep's study, without secrets."""
    address = address_of(directory)
    return f"study {address['name']} in {masked(address['storage'])}" if address else str(directory / JOURNAL)


def left_behind(directory: Path) -> str | None:
    """What stays when the folder is removed, and how that is removed; None when nothing does."""
    if (address := address_of(directory)) is None:
        return None
    url, name = address["storage"], address["name"]
    try:
        with explained(url):
            names = _studies(look(directory), name)
    except ChronotuneError:  # it does not answer
        names = [name, second_name(name)]
    return f"{where(directory)} stays; remove it with: {removal(url, names)}" if names else None


def removal(url: str, names: Sequence[str]) -> str:
    """The command that removes studies from a database; the shell puts in the address's variables."""
    return "; ".join(f'optuna delete-study --storage "{url}" --study-name {quote(name)}' for name in names)


def repair(directory: Path) -> None:
    """Make a journal loadable after a crash: cut what is torn at its end, clear a lock whose holder is gone.

    Only for the holder of the sweep's lease: nobody else writes the journal.
    """
    journal = directory / JOURNAL
    for lock in directory.glob(f"{JOURNAL}.lock*"):
        lock.unlink(missing_ok=True)
    if not journal.exists():
        return
    with journal.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        while whole and not _is_json(content[(begin := content.rfind(b"\n", 0, whole - 1) + 1) : whole]):
            whole = begin  # a disk that lost its power can hold a line's length without its content
        if whole < len(content):
            file.truncate(whole)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


@contextmanager
def explained(url: str | None, remedy: str = _GO_ON) -> Iterator[None]:
    """Turn what a study's database raises inside the block into a sentence; nothing for a journal (None).

    Args:
        url: The database's address.
        remedy: What to do next, a sentence without its full stop.

    Raises:
        ChronotuneError: The database does not answer, or refused something.
    """
    try:
        yield
    except Exception as error:
        if url is None or (cause := _failure(error)) is None:
            raise
        reason = str(cause).strip().splitlines()[0]
        raise ChronotuneError(
            f"{masked(url)}: the study's database must answer, but did not: {reason}. {remedy}"
        ) from error


def steadily(method: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let a method run once more when a database's connection breaks in it; only for what may be done twice."""

    @wraps(method)
    def twice(*arguments: _P.args, **options: _P.kwargs) -> _T:
        try:
            return method(*arguments, **options)
        except Exception as error:
            if _failure(error) is None:
                raise
            log.warning("the study's database broke off, and is asked again: %s", _failure(error))
            return method(*arguments, **options)

    return twice


def _failure(error: BaseException | None) -> SQLAlchemyError | None:
    """The database's own complaint behind an error, if there is one."""
    while error is not None and not isinstance(error, SQLAlchemyError):
        error = error.__cause__ or error.__context__
    return error


def _journal(directory: Path) -> Journal:
    return Journal(directory / JOURNAL)


def _database(url: str, *, skip_table_creation: bool = True) -> RDBStorage:
    """A database's storage, whose connections are tried before they are used again."""
    limit = {"connect_timeout": _CONNECT_SECONDS} if POSTGRESQL.match(url) else {"timeout": _LOCKED_SECONDS}
    options = {"pool_pre_ping": True, "connect_args": limit}
    try:
        return RDBStorage(expanded(url), options, skip_table_creation=skip_table_creation)
    except ImportError as error:
        raise InputError(
            f"{masked(url)}: a database needs its Python driver, but there is none. "
            f"Install it: pip install 'chronotune[postgresql]'"
        ) from error


def _patient(url: str) -> BaseStorage:
    """A database's storage that waits for a server that is away, once it was there."""
    with explained(url):
        storage = _database(url, skip_table_creation=False)
    sqlalchemy.event.listen(storage.engine, "do_connect", _Patience())
    return optuna.storages.get_storage(storage)


class _Patience:
    """Connects to a server as soon as it answers, for SQLAlchemy's event `do_connect`.

    After `PATIENCE_SECONDS` it gives up, and from then on waits no more until the server has answered again.
    """

    def __init__(self) -> None:
        self._away_since: float | None = None

    def __call__(self, dialect: Any, record: Any, arguments: Any, options: Any) -> Any:
        """A connection, as `dialect.connect` makes it, or its error."""
        while True:
            try:
                connection = dialect.connect(*arguments, **options)
            except dialect.loaded_dbapi.OperationalError as error:
                if self._has_run_out(error):
                    raise
            else:
                self._away_since = None
                return connection
            time.sleep(1)

    def _has_run_out(self, error: Exception) -> bool:
        if self._away_since is None:
            self._away_since = time.monotonic()
            log.warning(
                "the study's database is away; the sweep waits for it, %g seconds at most: %s",
                *(PATIENCE_SECONDS, str(error).strip().splitlines()[0]),
            )
        return time.monotonic() - self._away_since >= PATIENCE_SECONDS
