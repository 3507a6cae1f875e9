"""JSON Schemas: what editors check agrees with what the loader takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # comes with Ray; ships no types
import pytest

from chronotune.catalog import FOLDERS, Entry, Kind, entries
from chronotune.config.lines import parse, read
from chronotune.config.load import dump_recipe, load_recipe, schema

FILES = [entry for kind in FOLDERS for entry in entries(kind)]


def _check(kind: Kind, value: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema(kind)).validate(value)


@pytest.mark.parametrize("kind", list(FOLDERS))
def test_is_a_schema(kind: Kind) -> None:
    """Each schema is itself valid and refuses unknown keys."""
    jsonschema.Draft202012Validator.check_schema(schema(kind))
    assert schema(kind)["additionalProperties"] is False


@pytest.mark.parametrize("entry", FILES, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_shipped_files_validate(entry: Entry) -> None:
    """Every shipped file satisfies the schema of its kind, names and bare values included."""
    _check(entry.kind, read(entry.path, entry.name).value)


def test_inlined_recipe_validates() -> None:
    """A recipe with everything inlined satisfies it too."""
    _check("recipe", parse(dump_recipe(load_recipe("steel")), "x", Path()).value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("trials:", "trails:"),
        ("horizon: 24", "horizon: text"),
        ("model: tiny", "model: 3"),
        ("search_space: smoke", "search_space: {windows: {low: 1, high: 3}}"),
    ],
)
def test_mistakes_are_refused(old: str, new: str) -> None:
    """An editor marks what the loader would refuse."""
    text = next(entry.path for entry in FILES if entry.name == "smoke").read_text().replace(old, new)
    with pytest.raises(jsonschema.ValidationError):
        _check("recipe", parse(text, "x", Path()).value)


def _described(value: dict[str, Any]) -> list[str]:
    own = [name for name, field in value.get("properties", {}).items() if "description" not in field | _target(field)]
    return own + [f"{name}.{key}" for name, inner in value.get("$defs", {}).items() for key in _described(inner)]


def _target(field: dict[str, Any]) -> dict[str, Any]:
    return {"description": "of the type it refers to"} if "$ref" in field or "anyOf" in field else {}


def test_every_key_is_explained() -> None:
    """Editors show an explanation for every key but the tag of a parameter."""
    assert [key for key in _described(schema("recipe")) if not key.endswith(".type")] == []
