"""Folders that are complete or absent: checkpoints of a training run, and anything else written like them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from chronotune.errors import CheckpointLostError, ChronotuneError, StorageError

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, STATE, META = "weights.safetensors", "state.pt", "meta.json"
_FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A training run between two steps."""

    weights: dict[str, Tensor]
    """The trained parameters by name, as they are scored: all of them, or only the adapters."""
    state: dict[str, Any]
    """What only training on needs: tensors and plain values; empty after `drop_state`."""
    meta: dict[str, Any]
    """Progress and settings, as JSON holds them."""


def write(folder: Path, checkpoint: Checkpoint, notes: Callable[[], Mapping[str, Any]] | None = None) -> None:
    """Write a checkpoint that appears complete or not at all; one already there under this name is replaced.

    Args:
        folder: Where it appears.
        checkpoint: What it holds.
        notes: Gives the caller's own, as JSON holds them; asked for when the tensors are on disk.

    Raises:
        StorageError: It cannot be written.
        ChronotuneError: `folder` is something else than a checkpoint.
    """
    from safetensors.torch import save_file
    from torch import save

    if folder.exists() and not _is_checkpoint(folder):
        raise ChronotuneError(f"a checkpoint must not replace {folder}, which is none; move it away")
    # before the block: a GPU that has failed says so when it is asked for its numbers, and is no fault of the disk's
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()}
    unwritable: tuple[type[Exception], ...] = (*disk_errors(), RuntimeError)
    try:
        with appearing(folder) as partial:
            save_file(weights, partial / WEIGHTS)
            del weights  # the notes may be long in coming
            save(checkpoint.state, partial / STATE)
            digests = {name: sha256(partial / name) for name in (WEIGHTS, STATE)}
            for name in digests:  # before the notes, which may be long in coming
                _sync(partial / name)
            told = {"notes": dict(notes())} if notes else {}
            meta = {**checkpoint.meta, **told, "format": _FORMAT, "sha256": digests}
            (partial / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
    except unwritable as error:
        raise StorageError(
            f"cannot write checkpoint {folder}: {_first_line(error)}; check rights and free space"
        ) from error


def _is_checkpoint(folder: Path) -> bool:
    """Whether a folder is one, or what is left of one whose removal was cut short."""
    if (folder / META).exists():
        return True
    return folder.is_dir() and {path.name for path in folder.iterdir()} <= {WEIGHTS, STATE}


def disk_errors() -> tuple[type[Exception], ...]:
    """What a file that cannot be written raises: the system's errors, and what safetensors makes of them."""
    from safetensors import SafetensorError

    return OSError, SafetensorError


def read(folder: Path) -> Checkpoint:
    """Read a checkpoint and verify the digests of its files. Nothing in it is executed.

    Raises:
        CheckpointLostError: It is missing or damaged.
        StorageError: It cannot be read now.
        ChronotuneError: It is of another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from torch import load

    try:
        meta = read_meta(folder)
        for name, digest in meta["sha256"].items():
            if sha256(folder / name) != digest:
                raise ValueError(f"{name} does not have the SHA-256 that was written")
        has_state = STATE in meta["sha256"]
        state = load(folder / STATE, map_location="cpu", weights_only=True) if has_state else {}
        return Checkpoint(load_file(folder / WEIGHTS), state, meta)
    except (OSError, ValueError, KeyError, RuntimeError, UnpicklingError, SafetensorError) as error:
        raise _unread(folder, error) from error


def drop_state(folder: Path) -> None:
    """Free what only resuming needs; weights and notes stay. At any moment the checkpoint can be read.

    Raises:
        ChronotuneError: There is no checkpoint, or a damaged one.
        OSError: It cannot be changed.
    """
    meta = read_meta(folder)
    if STATE in (digests := meta.get("sha256", {})):
        kept = {name: digest for name, digest in digests.items() if name != STATE}
        partial = folder / f".{META}.partial"
        partial.write_text(json.dumps({**meta, "sha256": kept}, indent=2) + "\n", encoding="utf-8")
        _sync(partial)
        partial.replace(folder / META)
        _sync(folder)
    (folder / STATE).unlink(missing_ok=True)  # also where an earlier try ended before this


def read_meta(folder: Path) -> dict[str, Any]:
    """Progress and settings of a checkpoint, without its weights.

    Raises:
        CheckpointLostError: It is missing or damaged.
        StorageError: It cannot be read now.
        ChronotuneError: It cannot be read by this version.
    """
    try:
        meta: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf-8"))
        version = meta["format"]
    except FileNotFoundError:
        raise CheckpointLostError(f"there is no checkpoint in {folder}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unread(folder, error) from error
    if version != _FORMAT:
        raise ChronotuneError(
            f"checkpoint {folder} must have format {_FORMAT}, but has {version}; use the chronotune that wrote it"
        )
    return meta


def _unread(folder: Path, error: Exception) -> ChronotuneError:
    """What is wrong with it: a disk that does not give a file now, or refuses it, has not lost it."""
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return StorageError(f"checkpoint {folder} cannot be read ({_first_line(error)}); check the disk and rights")
    return CheckpointLostError(f"checkpoint {folder} is damaged ({_first_line(error)}); delete it")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_same(folder: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Refuse to continue a checkpoint whose settings differ from those of the run that wants it.

    Raises:
        ChronotuneError: Names every setting that differs.
    """
    keys = sorted({*theirs, *ours})
    if wrong := [f"{k} is {theirs.get(k)} there and {ours.get(k)} here" for k in keys if theirs.get(k) != ours.get(k)]:
        raise ChronotuneError(f"checkpoint {folder} must be of a run with the same settings, but {'; '.join(wrong)}")


@contextmanager
def appearing(folder: Path, *, replace: bool = True) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder` when the block ends without an error.

    Until then it is a hidden sibling. Its files get the rights of new files: safetensors makes its own for the owner
    alone. All that is in it reaches the disk before it gets its name, so that after a crash
    the folder is the old one, the new one or absent, never a part. What an earlier crash left behind is removed.

    Raises:
        ChronotuneError: `replace` is false, and `folder` is there, or came to be there in the meantime.
    """
    if not replace:
        _refuse_existing(folder)
    partial, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        rights = partial.stat().st_mode & 0o666
        for path in (*partial.rglob("*"), partial):
            if path.is_file():
                path.chmod(rights)
            _sync(path)
        if not replace:
            _refuse_existing(folder)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        partial.rename(folder)
        _sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _refuse_existing(folder: Path) -> None:
    if folder.exists():
        raise ChronotuneError(f"{folder} must be new, but exists; choose another name or remove it")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
