"""What a recipe refers to, put in: `--set` overrides, the files that it names, and paths made absolute."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from chronotune import catalog
from chronotune.catalog import Kind
from chronotune.config import lines
from chronotune.config.lines import Document, Place
from chronotune.config.recipe import Recipe
from chronotune.config.storage import absolute
from chronotune.errors import Fault, InputError

PARTS: dict[str, Kind] = {"model": "model", "search_space": "space", "cluster": "cluster"}
"""Keys of a recipe that may hold the name of another file."""

_SQLITE = re.compile(r"(?P<scheme>sqlite(\+\w+)?:///)(?P<path>[^?]+)(?P<query>\?.*)?")


def open_document(kind: Kind, source: str | Path) -> Document:
    """Read the file that `source` names.

    Raises:
        InputError: There is none, or it is no YAML mapping.
    """
    path = catalog.find(kind, source)
    return lines.read(path, catalog.display(path))


def override(document: Document, settings: Sequence[str]) -> None:
    """Write `key=value` settings into the document, in order; a named part is read before a key inside it is set."""
    place = Place("--set", folder=Path.cwd())
    for setting in settings:
        key, equals, text = setting.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            rule, remedy = f"must look like key=value, but got {setting!r}", "Write --set budget.trials=40"
            document.faults.append(Fault("--set", "", rule, remedy))
            continue
        if len(path) > 1 and path[0] in PARTS:
            inline(document, path[0])
        try:
            document.write(path, lines.scalar(text), place)
        except (yaml.YAMLError, ValueError, RecursionError):
            rule, remedy = f"must be a YAML value, but got {text!r}", "Check its brackets and quotes"
            document.faults.append(Fault("--set", key.strip(), rule, remedy))


def inline(document: Document, part: str) -> None:
    """Replace the name under `part`, if there is one, by what its file holds."""
    name = document.value.get(part)
    if not isinstance(name, str) or part in document.unread:
        return
    place = document.place((part,))
    try:
        document.graft(part, open_document(PARTS[part], _beside(place, name)))
    except InputError as error:
        document.faults += [_at_the_name(fault, place, part) for fault in error.faults]
        document.unread.add(part)


def anchor_weights(document: Document, *owner: str) -> None:
    """Make the `weights` of the preset under `owner` absolute when they are a folder beside its YAML file."""
    preset = document.value.get(owner[0]) if owner else document.value
    if isinstance(preset, dict) and isinstance(weights := preset.get("weights"), str):
        folder = document.place((*owner, "weights")).folder / Path(weights).expanduser()
        if folder.is_dir():
            preset["weights"] = str(folder.resolve())


def anchored(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with its paths made absolute, to mean the same from any directory.

    They are `data.path`, an SQLite `tracking.uri` or `storage` and the folders of `search.warm_start`.

    Args:
        recipe: Valid, its paths as written.
        folder: Of the file that `data.path` was written in: counts when it is there, but not in this directory.
    """
    data, tracking = recipe.data, recipe.tracking
    if data.path is not None:
        data = data.model_copy(update={"path": str(_absolute(Path(data.path).expanduser(), folder))})
    if tracking.uri and (found := _SQLITE.fullmatch(tracking.uri)):
        uri = f"{found['scheme']}{Path(found['path']).absolute()}{found['query'] or ''}"
        tracking = tracking.model_copy(update={"uri": uri})
    earlier = [str(_absolute(Path(sweep).expanduser(), folder)) for sweep in recipe.search.warm_start]
    search = recipe.search.model_copy(update={"warm_start": earlier})
    parts = {"data": data, "tracking": tracking, "search": search, "storage": absolute(recipe.storage)}
    return recipe.model_copy(update=parts)


def _absolute(written: Path, folder: Path) -> Path:
    beside = folder / written
    return beside.resolve() if beside.exists() and not written.exists() else written.absolute()


def _beside(place: Place, name: str) -> str | Path:
    """`name`, or the file beside the one that it is written in when it is a path that exists there."""
    beside = place.folder / name
    return beside if catalog.is_path(name) and beside.exists() else name


def _at_the_name(fault: Fault, place: Place, part: str) -> Fault:
    """A failed look-up belongs to the key that holds the name; a fault inside the file stays where it is."""
    return replace(fault, where=str(place), key=part) if fault.where == catalog.NOUNS[PARTS[part]] else fault
