"""What a job is told and brings along, packed where it is submitted and unpacked on the cluster."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from chronotune.config.recipe import Recipe
from chronotune.config.storage import file_of
from chronotune.errors import Fault, InputError, StorageError

LARGEST = 400 * 2**20
"""Bytes that Ray is asked to carry: its limit is 512 MiB, and the head's memory holds them."""

SENT = ".sent"
"""Folder beside the sweeps that holds what jobs have brought along, by its hash."""

_MODEL, _DATA = "model", "data"


@dataclass(frozen=True)
class Order:
    """What the driver on the cluster is told, as JSON in its environment. It holds no secret."""

    directory: str
    """The sweep's folder, there."""
    recipe: dict[str, Any] | None
    """Of a new sweep; None: go on with the one in `directory`."""
    sent: dict[str, str] = field(default_factory=dict)
    """Parts of the recipe (model, data) whose files came along, and where in the job's working directory."""
    more_trials: int = 0
    more_minutes: float = 0

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Self:
        """From JSON."""
        return cls(**json.loads(text))


def pack(recipe: Recipe, directory: str, folder: Path) -> Order:
    """Copy files of this machine that the recipe names into `folder`, and say what is where.

    A path that does not exist here is one of the cluster's.

    Raises:
        InputError: They are too large to be sent, or the recipe names what only this machine has.
    """
    _refuse_own_places(recipe, Path(directory).parent)
    sources = {_MODEL: Path(recipe.model.weights), _DATA: Path(recipe.data.path or "").expanduser()}
    present = {
        part: path
        for part, path in sources.items()
        if (path.is_dir() if part == _MODEL else recipe.data.path and path.is_file())
    }
    _refuse_large(present)
    for part, path in present.items():
        shutil.copytree(path, folder / part) if path.is_dir() else _copy(path, folder / part / path.name)
    sent = {part: part if path.is_dir() else f"{part}/{path.name}" for part, path in present.items()}
    return Order(directory, _of_the_cluster(recipe, Path(directory).parent), sent)


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True)
    shutil.copy2(file, to)


def _refuse_own_places(recipe: Recipe, sweeps: Path) -> None:
    """A database's file and earlier sweeps that are on this machine's disk are not on the cluster's."""
    named = [("search.warm_start", Path(folder)) for folder in recipe.search.warm_start]
    if database := file_of(recipe.storage or ""):
        named.append(("storage", database.parent))
    faults = [
        Fault("recipe", key, f"must be of the cluster, but {folder} is a folder of this machine", _OF_THE_CLUSTER[key])
        for key, folder in named
        if folder.is_dir() and not folder.is_relative_to(sweeps)
    ]
    if faults:
        raise InputError(faults)


_OF_THE_CLUSTER = {
    "storage": "Name a database server that the nodes reach, or a file beside the cluster's sweeps, or leave it out",
    "search.warm_start": "Name earlier sweeps by their folders there",
}


def _refuse_large(present: Mapping[str, Path]) -> None:
    """They travel as one package."""
    sizes = {part: _size(path) for part, path in present.items()}
    if sum(sizes.values()) <= LARGEST:
        return
    largest = max(sizes, key=lambda part: sizes[part])
    found = " and ".join(f"{present[part]} has {size / 2**20:.0f}" for part, size in sizes.items())
    rule = f"files that a job brings along may have {LARGEST / 2**20:.0f} MiB together, but {found}"
    raise InputError([Fault("recipe", largest, rule, "Put it on the cluster's shared storage, and name it there")])


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _of_the_cluster(recipe: Recipe, sweeps: Path) -> dict[str, Any]:
    """The recipe as the cluster's own node runs it; an MLflow file store lies beside the sweeps, as here."""
    changed: dict[str, Any] = recipe.model_dump(mode="json")
    changed["cluster"] |= {"kind": "here", "address": None, "environment": {}}
    if found := re.fullmatch(r"sqlite:///.*?([^/?]+)(\?.*)?", recipe.tracking.uri or ""):
        changed["tracking"]["uri"] = f"sqlite:///{sweeps / found[1]}"
    return changed


def unpack(order: Order, came: Path) -> Recipe:
    """The recipe of an order on the cluster, with its files on the storage that all nodes see.

    Args:
        order: Of a new sweep.
        came: The job's working directory.

    Raises:
        StorageError: That storage does not take them.
    """
    assert order.recipe is not None
    recipe, kept = order.recipe, Path(order.directory).parent / SENT
    for part, inside in order.sent.items():
        try:
            path = str(_keep(came / inside, kept))
        except OSError as error:
            raise StorageError(
                f"{kept}: what a job brings along is kept there, but it cannot be written ({error.strerror or error}). "
                f"See its rights and its space, then submit again"
            ) from error
        recipe[part]["weights" if part == _MODEL else "path"] = path
    return Recipe.model_validate_json(json.dumps(recipe), strict=True)


def _keep(source: Path, root: Path) -> Path:
    """A lasting copy, named by its contents, so that many sweeps of the same data keep one."""
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as opened:
            while block := opened.read(2**20):
                digest.update(block)
    kept = root / digest.hexdigest()[:16]
    if not kept.exists():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{kept.name}-", ignore_cleanup_errors=True) as place:
            growing = Path(place) / kept.name
            growing.mkdir()
            for file in files:
                shutil.copy2(file, growing / file.name)
            try:
                growing.rename(kept)
            except OSError:
                if not kept.exists():  # else another job was faster
                    raise
    return kept if source.is_dir() else kept / source.name
