"""What pydantic finds wrong, in the words and at the places of the user."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from chronotune.config.base import Breach, Declaration, RulesError
from chronotune.config.lines import Document, KeyPath
from chronotune.errors import Fault

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "list": "a list",
    "dict": "key: value lines",
    "model": "key: value lines",
    "datetime": "a time such as 2026-01-31T12:00:00Z",
    "timezone": "a time with its zone, such as 2026-01-31T12:00:00Z",
}
_LIMITS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
_MISSING, _UNKNOWN = "is required, but missing", "is not a known key"
_SLOT = "a plain value, or key: value lines with type: float, int, choice or fixed"


def faults(error: ValidationError, root: type[Declaration], document: Document) -> list[Fault]:
    """Every mistake of `document` once, at the line of its key."""
    found: dict[tuple[KeyPath, str], Breach] = {}
    for details in error.errors(include_url=False):
        for path, breach in _explain(details, root, document):
            if not path or path[0] not in document.unread:
                found.setdefault((path, breach.rule), breach)
    meant = {(*path[:-1], *breach.key) for (path, rule), breach in found.items() if rule == _UNKNOWN}
    return [
        document.fault(path, rule, breach.remedy)
        for (path, rule), breach in found.items()
        if not (rule == _MISSING and path in meant)
    ]


def _explain(details: ErrorDetails, root: type[Declaration], document: Document) -> Iterator[tuple[KeyPath, Breach]]:
    kind, location = details["type"], details["loc"]
    absent = kind in ("missing", "extra_forbidden")
    path = _written(location, document.value, absent)
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, RulesError):
        for breach in cause.breaches:
            yield (*path, *breach.key), breach
    elif absent:
        owners = declared_at(root, location[:-1])
        yield path, _missing(str(path[-1]), owners) if kind == "missing" else _unknown(str(path[-1]), owners)
    else:
        yield path, Breach((), *_wrong(details, path, location))


def _written(location: KeyPath, value: Any, absent: bool) -> KeyPath:
    """`location` without what pydantic adds: union tags and the inside of a bare scalar."""
    path: list[str | int] = []
    for position, part in enumerate(location):
        inside = (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int))
        if inside:
            value = value[part]
        if inside or (absent and position == len(location) - 1):
            path.append(part)
    return tuple(path)


def declared_at(root: type[Declaration], location: KeyPath) -> list[type[Declaration]]:
    """The types that may stand at `location` of a `root`: one, or those of a union."""
    found = [root]
    for part in location:
        tagged = [t for t in found if "type" in t.model_fields and t.model_fields["type"].default == part]
        fields = [t.model_fields[part].annotation for t in found if isinstance(part, str) and part in t.model_fields]
        found = tagged or [inner for annotation in fields for inner in _declarations(annotation)] or found
    return found


def _declarations(annotation: Any) -> list[type[Declaration]]:
    if isinstance(annotation, type) and issubclass(annotation, Declaration):
        return [annotation]
    return [found for argument in typing.get_args(annotation) for found in _declarations(argument)]


def _missing(key: str, owners: list[type[Declaration]]) -> Breach:
    fields = [owner.model_fields[key] for owner in owners if key in owner.model_fields]
    meaning = fields[0].description if fields else None
    return Breach((), _MISSING, f"Add it: {meaning or key}".removesuffix("."))


def _unknown(key: str, owners: list[type[Declaration]]) -> Breach:
    """The key of this breach is the one that was probably meant."""
    known = list(dict.fromkeys(name for owner in owners for name in owner.model_fields))
    close = get_close_matches(key, known, n=1, cutoff=0.6)
    remedy = f"Did you mean {close[0]}?" if close else f"Known keys here: {', '.join(known)}"
    return Breach(tuple(close), _UNKNOWN, remedy)


def _wrong(details: ErrorDetails, path: KeyPath, location: KeyPath) -> tuple[str, str]:
    """Rule and remedy for a value that does not fit its key."""
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    got = f"but got {shown(value)}"
    if kind in _LIMITS:
        name, word = _LIMITS[kind]
        limit = shown(context[name]).removesuffix(".0")
        return f"must be {word} {limit}, {got}", f"Give a number {word} {limit}"
    if kind in ("literal_error", "union_tag_invalid"):
        return _not_among(kind, value, context)
    if kind == "string_pattern_mismatch":
        return f"may hold letters, digits, '.', '_' and '-' only, {got}", "Rename it"
    if kind in ("too_short", "string_too_long"):
        return _size(kind, value, context)
    if kind == "finite_number":
        return f"must be finite, {got}", "Give a finite number"
    if location[-1:] != path[-1:] and location[-1] in ("bool", "int", "float", "str"):
        return f"must be a number, text, true or false, {got}", "Give one plain value"
    if kind == "union_tag_not_found" or kind == "model_attributes_type":
        return f"must be {_SLOT}, {got}", _slot_remedy(value)
    if wanted := _TYPES.get(kind.split("_")[0]):
        return f"must be {wanted}, {got}", _type_remedy(wanted, value)
    message = details["msg"].removeprefix("Value error, ")
    return f"is not right: {message[:1].lower()}{message[1:]}", "Correct it"


def _not_among(kind: str, value: Any, context: dict[str, Any]) -> tuple[str, str]:
    options = [option.strip(" '") for option in context.get("expected", context.get("expected_tags", "")).split(",")]
    options = [part.strip(" '") for option in options for part in option.split(" or ")]
    got = value.get("type") if kind == "union_tag_invalid" else value
    close = get_close_matches(str(got), options, n=1, cutoff=0.5)
    remedy = f"Did you mean {close[0]}?" if close else f"Write one of {', '.join(options)}"
    subject = "must have type" if kind == "union_tag_invalid" else "must be"
    return f"{subject} {', '.join(options[:-1])} or {options[-1]}, but got {shown(got)}", remedy


def _size(kind: str, value: Any, context: dict[str, Any]) -> tuple[str, str]:
    if kind == "too_short":
        return f"must have at least {context['min_length']} entry, but has {len(value)}", "Add one"
    return f"must have at most {context['max_length']} characters, but has {len(value)}", "Shorten it"


def _slot_remedy(value: Any) -> str:
    if isinstance(value, list):
        return f"To choose between values write {{type: choice, values: {shown(value)}}}"
    if isinstance(value, dict) and "values" in value:
        return "Add type: choice"
    if isinstance(value, dict) and "low" in value:
        return "Add type: float or type: int"
    return "Give one value, or a range such as {type: int, low: 4, high: 16}"


def _type_remedy(wanted: str, value: Any) -> str:
    if value is None:
        return "Give a value"
    if isinstance(value, str) and "number" in wanted and _is_number(value):
        return "Remove the quotes"
    if wanted == "a list" and not isinstance(value, dict):
        return f"Write [{shown(value)}]"
    if wanted == "text" and not isinstance(value, dict | list):
        return f'Put it in quotes: "{shown(value)}"'
    return f"Give {wanted}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def shown(value: Any) -> str:
    """A value as YAML would show it, shortened."""
    match value:
        case None:
            text = "nothing"
        case bool():
            text = str(value).lower()
        case str():
            text = repr(value)
        case list():
            text = f"[{', '.join(map(shown, value))}]"
        case dict():
            text = f"{{{', '.join(f'{key}: {shown(inner)}' for key, inner in value.items())}}}"
        case _:
            text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
