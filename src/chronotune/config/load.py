"""YAML and `--set` to frozen declarations, with every fault of all files at once; and back to YAML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from chronotune.catalog import Kind
from chronotune.config import lines
from chronotune.config.base import Declaration
from chronotune.config.cluster import LOCAL, ClusterProfile, as_meant
from chronotune.config.faults import faults
from chronotune.config.lines import Document
from chronotune.config.model import ModelPreset
from chronotune.config.recipe import Recipe, without_duplicate_sets
from chronotune.config.resolve import PARTS, anchor_weights, anchored, inline, open_document, override
from chronotune.config.space import SearchSpace
from chronotune.errors import Fault, InputError

TYPES: dict[Kind, type[Declaration]] = {
    "recipe": Recipe,
    "space": SearchSpace,
    "model": ModelPreset,
    "cluster": ClusterProfile,
}

_Type = TypeVar("_Type", bound=Declaration)


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path, apply `--set` overrides in order, and inline the files that it names.

    Paths become absolute, so that the recipe means the same from any directory: `model.weights` beside its YAML file,
    `data.path` in the current directory or else beside the recipe, an SQLite `tracking.uri` in the current directory.
    Of covariate sets with the same columns only the first stays in the search, so that no trial is run twice.

    Args:
        source: A name from the catalog, or the path of a YAML file or of the folder of a sweep or an export.
        overrides: `key=value` with a dotted key and a YAML value; later ones win.

    Raises:
        InputError: With every fault of the recipe, of the files that it names and of the overrides.
    """
    document = open_document("recipe", source)
    _read_as_meant(document)
    document.value.setdefault("cluster", LOCAL.name)
    override(document, overrides)
    for part in PARTS:
        inline(document, part)
    anchor_weights(document, "model")
    folder = document.place(("data", "path")).folder
    return anchored(without_duplicate_sets(_validated(Recipe, document)), folder)


def load_space(source: str | Path) -> SearchSpace:
    """Read a search space by name or path.

    Raises:
        InputError: With every fault found.
    """
    return _validated(SearchSpace, open_document("space", source))


def load_model(source: str | Path) -> ModelPreset:
    """Read a model preset by name or path; a `weights` folder beside it becomes absolute.

    Raises:
        InputError: With every fault found.
    """
    document = open_document("model", source)
    anchor_weights(document)
    return _validated(ModelPreset, document)


def load_cluster(source: str | Path) -> ClusterProfile:
    """Read a cluster profile by name or path.

    Raises:
        InputError: With every fault found.
    """
    return _validated(ClusterProfile, open_document("cluster", source))


def dump_recipe(recipe: Recipe) -> str:
    """YAML that `load_recipe` reads back to an equal recipe."""
    return dump(recipe)


def dump(declaration: Declaration) -> str:
    """YAML that reads back to an equal declaration; what is null by default is left out, fixed parameters are bare."""
    return lines.dump(_compact(_said(declaration, declaration.model_dump(mode="json"))))


def schema(kind: Kind) -> dict[str, Any]:
    """JSON Schema (2020-12) of the YAML of `kind`, names of other files included."""
    described = TYPES[kind].model_json_schema()
    if kind == "recipe":
        for part in PARTS:
            named = {"type": "string", "description": f"A name from `chronotune ls`, or the path of a {part} file."}
            described["properties"][part] = {"anyOf": [named, described["properties"][part]]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described}


def _validated(kind: type[_Type], document: Document) -> _Type:
    found = list(document.faults)
    try:
        # as JSON, so that strict still takes mappings for declarations and ISO text for times
        declaration = kind.model_validate_json(json.dumps(document.value, default=str), strict=True)
    except ValidationError as error:
        found += faults(error, kind, document)
    if found:
        raise InputError(sorted(found, key=_file_and_line))
    return declaration


def _read_as_meant(document: Document) -> None:
    """Let the recipe of a sweep or an export mean what it did when an earlier version wrote it."""
    cluster = document.value.get("cluster")
    if isinstance(cluster, dict) and Path(document.places[()].source).name == "recipe.yaml":
        document.value["cluster"] = dict(as_meant(cluster))


def _file_and_line(fault: Fault) -> tuple[str, int]:
    source, _, line = fault.where.rpartition(":")
    return (source, int(line)) if line.isdigit() else (fault.where, 0)


def _said(value: Any, dumped: Any) -> Any:
    """What a declaration was dumped to, without the nulls that are there by default."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {
            name: _said(getattr(value, name), inner)
            for name, inner in dumped.items()
            if inner is not None or fields[name].default is not None
        }
    if isinstance(value, Mapping):
        return {name: _said(value[name], inner) for name, inner in dumped.items()}
    if isinstance(value, list | tuple):
        return [_said(*pair) for pair in zip(value, dumped, strict=True)]
    return dumped


def _compact(value: Any) -> Any:
    """The same without empty conditions, and with a bare scalar for a parameter that is fixed without one."""
    if not isinstance(value, dict):
        return value
    kept = {key: _compact(inner) for key, inner in value.items() if not (key == "when" and inner == {})}
    return kept["value"] if kept.get("type") == "fixed" and "when" not in kept else kept
