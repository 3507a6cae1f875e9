"""Where a sweep's checkpoints lie, and which stay: in a folder, or in an S3-compatible object store, through pyarrow.

A checkpoint has a key, `0007/864`: trial and windows seen. It is complete or absent in either place: a folder is
renamed into its name when it is whole; of an object store, which renames nothing, `meta.json` is written last and
deleted first.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from chronotune import checkpoint
from chronotune.checkpoint import META, STATE
from chronotune.errors import ChronotuneError, StorageError
from chronotune.records import FINALISTS, TrialRecord, by_score

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SCRATCH = ".tune"
"""Key of what Ray Tune writes and nobody reads."""

_BLOCK = 4 * 2**20
"""Bytes that are copied at once."""


class Store(Protocol):
    """Checkpoints by key, and whatever else trials leave in folders with a name."""

    def complete(self, trial: str) -> list[int]:
        """Windows seen of a trial's complete checkpoints, ascending."""

    def children(self, trial: str) -> list[str]:
        """Names of all that lies under a trial, also of what is no complete checkpoint."""

    def save(self, key: str, write: Callable[[Path], None]) -> None:
        """Keep what `write` puts into the folder that it is given; what was there under `key` is replaced."""

    def local(self, key: str) -> AbstractContextManager[Path]:
        """A folder of this machine with all that is kept under `key`, only to read, while the block runs."""

    def meta(self, key: str) -> dict[str, Any]:
        """`checkpoint.read_meta` of one checkpoint, without fetching its weights."""

    def drop_state(self, key: str) -> None:
        """`checkpoint.drop_state` of one checkpoint."""

    def remove(self, key: str) -> None:
        """Remove a checkpoint, a trial's checkpoints, or all ("" as key); what cannot be removed stays."""

    @property
    def scratch(self) -> tuple[str, FileSystem | None]:
        """For Ray Tune's own files, seen by all workers: a path, and its file system if not the machine's."""


class _Removed:
    """What is gone already: a long sweep asks again and again to remove it all, and each look costs a request."""

    def __init__(self) -> None:
        self._keys = set[str]()
        self.stateless = set[str]()
        """Checkpoints without a training state: none of theirs is to be dropped any more."""

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        """Note that nothing is left under a key, if it is a trial's; what else there is may come again."""
        if key.removeprefix(f"{FINALISTS}/").isdigit():
            self._keys.add(key)

    def discard(self, key: str) -> None:
        """Forget what was noted, as a checkpoint of this key is saved."""
        self._keys.discard(key.rpartition("/")[0])
        self.stateless.discard(key)


class Folder:
    """A folder that all workers see at the same path."""

    def __init__(self, root: Path) -> None:
        self._root, self._removed = root, _Removed()

    def complete(self, trial: str) -> list[int]:
        """By `Store`: one that is being written has a name that is no number."""
        return sorted(int(name) for name in self.children(trial) if name.isdigit())

    def children(self, trial: str) -> list[str]:
        """By `Store`."""
        return [path.name for path in (self._root / trial).glob("*")]

    def save(self, key: str, write: Callable[[Path], None]) -> None:
        """By `Store`: `write` makes it appear at once, as `checkpoint.write` does."""
        self._removed.discard(key)
        write(self._root / key)

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        """By `Store`."""
        yield self._root / key

    def meta(self, key: str) -> dict[str, Any]:
        """By `Store`."""
        return checkpoint.read_meta(self._root / key)

    def drop_state(self, key: str) -> None:
        """By `Store`."""
        checkpoint.drop_state(self._root / key)

    def remove(self, key: str) -> None:
        """By `Store`: what this object has removed as a whole is not looked for again."""
        if key in self._removed:
            return
        if os.path.lexists(path := f"{self._root}/{key}"):
            shutil.rmtree(path, ignore_errors=True)
        if not os.path.lexists(path):
            self._removed.add(key)

    @property
    def scratch(self) -> tuple[str, FileSystem | None]:
        """By `Store`."""
        return str(self._root / SCRATCH), None


class Bucket:
    """A prefix of an S3-compatible object store. Credentials come from the environment, never from the address.

    Raises:
        StorageError: The store does not answer.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._files, self._root = connect(address)
        self._removed = _Removed()

    def complete(self, trial: str) -> list[int]:
        """By `Store`."""
        folders = [Path(path).parent.name for path in self._paths(trial) if path.endswith(f"/{META}")]
        return sorted(int(name) for name in folders if name.isdigit())

    def children(self, trial: str) -> list[str]:
        """By `Store`."""
        start = len(self._path(trial)) + 1
        return sorted({path[start:].split("/")[0] for path in self._paths(trial)})

    def save(self, key: str, write: Callable[[Path], None]) -> None:
        """By `Store`."""
        self._removed.discard(key)
        with tempfile.TemporaryDirectory(prefix="chronotune-") as parent:
            folder = Path(parent) / Path(key).name
            write(folder)
            with self._told(key, "written"):
                self._delete(self._paths(key))
                for path in sorted(folder.iterdir(), key=lambda path: path.name == META):
                    self._upload(path, f"{key}/{path.name}")

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        """By `Store`."""
        with tempfile.TemporaryDirectory(prefix="chronotune-") as parent:
            folder = Path(parent) / Path(key).name
            folder.mkdir()
            with self._told(key, "read"):
                for path in self._paths(key):
                    self._download(path, folder / Path(path).name)
            with self._named(folder, key):
                yield folder

    def meta(self, key: str) -> dict[str, Any]:
        """By `Store`."""
        with self._only_meta(key) as folder:
            return checkpoint.read_meta(folder)

    def drop_state(self, key: str) -> None:
        """By `Store`: once a key, as nobody writes a checkpoint again whose trial has ended."""
        if key in self._removed.stateless:
            return
        with self._only_meta(key) as folder:
            before = (folder / META).read_bytes() if (folder / META).exists() else b""
            checkpoint.drop_state(folder)
            if (folder / META).read_bytes() != before:
                self._upload(folder / META, f"{key}/{META}")
        self._delete([self._path(key, STATE)])
        self._removed.stateless.add(key)

    def remove(self, key: str) -> None:
        """By `Store`: what this object has removed as a whole is not looked for again."""
        if key in self._removed:
            return
        with suppress(StorageError, OSError):
            self._delete(self._paths(key))
            with suppress(OSError):  # the mark of an empty folder, where one was made
                self._files.delete_dir(self._path(key))
            self._removed.add(key)

    @property
    def scratch(self) -> tuple[str, FileSystem | None]:
        """By `Store`."""
        return self._path(SCRATCH), self._files

    def _path(self, *parts: str) -> str:
        return "/".join(filter(None, [self._root, *parts]))

    def _paths(self, key: str) -> list[str]:
        """All objects under `key`."""
        from pyarrow.fs import FileSelector, FileType

        selected = FileSelector(self._path(key), allow_not_found=True, recursive=True)
        with self._told(key, "listed"):
            return [found.path for found in self._files.get_file_info(selected) if found.type == FileType.File]

    def _upload(self, file: Path, key: str) -> None:
        with file.open("rb") as source, self._files.open_output_stream(self._path(key)) as target:
            shutil.copyfileobj(source, target, _BLOCK)

    def _download(self, path: str, file: Path) -> None:
        with self._files.open_input_stream(path) as source, file.open("wb") as target:
            shutil.copyfileobj(source, target, _BLOCK)

    def _delete(self, paths: list[str]) -> None:
        for path in sorted(paths, key=lambda path: not path.endswith(f"/{META}")):
            with suppress(FileNotFoundError):
                self._files.delete_file(path)

    @contextmanager
    def _only_meta(self, key: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="chronotune-") as parent:
            folder = Path(parent) / "checkpoint"
            folder.mkdir()
            with self._told(key, "read"), suppress(FileNotFoundError):
                self._download(self._path(key, META), folder / META)
            with self._named(folder, key):
                yield folder

    @contextmanager
    def _named(self, folder: Path, key: str) -> Iterator[None]:
        """Errors speak of the store, not of the copy."""
        try:
            yield
        except ChronotuneError as error:
            raise type(error)(str(error).replace(str(folder), f"{self.address} {key}")) from error

    @contextmanager
    def _told(self, key: str, done: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(
                f"{self.address} {key} must be {done}, but: {str(error).splitlines()[0]}. "
                f"Check address, rights, and the credentials in the environment of each node"
            ) from error


@lru_cache(maxsize=8)
def store_at(place: str | Path) -> Store:
    """The store at a path or an `s3://` address; the same object for the same place."""
    return Bucket(place) if isinstance(place, str) and "://" in place else Folder(Path(place))


def below(place: str, name: str) -> str:
    """The place called `name` inside `place`, which may be an address with a query."""
    if "://" not in place:
        return str(Path(place).expanduser().absolute() / name)
    address, mark, query = place.partition("?")
    return f"{address.rstrip('/')}/{name}{mark}{query}"


def connect(address: str) -> tuple[FileSystem, str]:
    """The file system of an `s3://BUCKET/PREFIX?endpoint_override=HOST:PORT&scheme=http&region=REGION`, and the path.

    What the query leaves out, `AWS_ENDPOINT_URL` and `AWS_REGION` say; credentials are found as every AWS tool does:
    environment variables, the shared credentials file, the instance's role.

    Raises:
        StorageError: The store does not answer.
    """
    from pyarrow import fs

    parts = urlsplit(address)
    given = dict(parse_qsl(parts.query))
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
    override = given.get("endpoint_override") or endpoint.netloc or None
    region = given.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    try:
        files = fs.S3FileSystem(
            endpoint_override=override,
            scheme=given.get("scheme") or endpoint.scheme or "https",
            region=region or (None if override else fs.resolve_s3_region(parts.netloc)),
            connect_timeout=10,
            request_timeout=60,
        )
    except OSError as error:
        raise StorageError(f"{address} must answer, but: {str(error).splitlines()[0]}. Check it") from error
    return files, f"{parts.netloc}{parts.path}".rstrip("/")


def trial_key(number: int, *, repeat: bool) -> str:
    """Under what a trial's checkpoints are kept; those of finalists' repeats are apart."""
    return f"{FINALISTS}/{number:04d}" if repeat else f"{number:04d}"


def prune(store: Store, trials: Sequence[TrialRecord], keep: int) -> None:
    """Delete what is no longer needed of a sweep's checkpoints.

    What stays: for the `keep` best complete trials the weights of their best checkpoint, for running trials everything.
    """
    prune_all_but(store, trials, {trial.number for trial in by_score(trials)[:keep]})


def prune_all_but(store: Store, trials: Sequence[TrialRecord], kept: Set[int]) -> None:
    """Delete what trials that have ended left, but for the best weights of those whose number is in `kept`."""
    for trial in trials:
        best = str(trial.best.windows_seen) if trial.best and trial.number in kept else None
        if trial.state != "running":
            _prune_ended(store, trial_key(trial.number, repeat=trial.seed is not None), best)


def _prune_ended(store: Store, trial: str, best: str | None) -> None:
    """Of a trial that trains no more, leave the weights of its best checkpoint, or nothing."""
    with suppress(ChronotuneError, OSError):  # a damaged one is told of when it is read
        if best is None:
            store.remove(trial)
            return
        for name in store.children(trial):
            if name != best:
                store.remove(f"{trial}/{name}")
        store.drop_state(f"{trial}/{best}")
