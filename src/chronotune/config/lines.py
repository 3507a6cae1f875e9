"""YAML as plain values, with the file and line of every key, and writing it back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from chronotune.errors import Fault, InputError

KeyPath: TypeAlias = tuple[str | int, ...]

_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
_NULL = re.compile(r"(?:~|null|Null|NULL|)$")
_INT = re.compile(r"[-+]?[0-9]{1,18}$")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


@dataclass(frozen=True, order=True)
class Place:
    """Where a value was written."""

    source: str
    """The file as the user would name it, or `--set`."""
    line: int = 0
    """Counted from 1; 0 when there is none."""
    depth: int = 0
    """How many leading keys of the full path are not written there: 1 for a preset that a recipe names."""
    folder: Path = field(default=Path(), compare=False)
    """What relative paths written there are relative to."""

    def __str__(self) -> str:
        """The file and line as compilers print them."""
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass
class Document:
    """Plain values, and where each key of theirs was written."""

    value: dict[str, Any]
    places: dict[KeyPath, Place]
    faults: list[Fault] = field(default_factory=list)
    """Found so far; the rest is still worth checking."""
    unread: set[str] = field(default_factory=set)
    """Top-level keys whose file could not be read, so that nothing below them can be judged."""

    def place(self, path: KeyPath) -> Place:
        """Where `path`, or else the nearest key that encloses it, was written."""
        return next(self.places[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.places)

    def fault(self, path: KeyPath, rule: str, remedy: str) -> Fault:
        """A fault of the key at `path`, named as in the file where it was written."""
        place = self.place(path)
        return Fault(str(place), dotted(path[place.depth :]), rule, remedy)

    def write(self, path: tuple[str, ...], value: Any, place: Place) -> None:
        """Set the key at `path`, making the mappings on the way."""
        inner = self.value
        for depth, part in enumerate(path[:-1], start=1):
            if not isinstance(inner.get(part), dict):
                inner[part] = {}
                self._note(path[:depth], place)
            inner = inner[part]
        inner[path[-1]] = value
        self._note(path, place)
        if len(path) == 1:
            self.unread.discard(path[0])

    def _note(self, path: KeyPath, place: Place) -> None:
        """Note `place` for `path` in place of what was known of it and of all below it."""
        self.places = {known: at for known, at in self.places.items() if known[: len(path)] != path}
        self.places[path] = place

    def graft(self, key: str, other: Document) -> None:
        """Put the values of another file under `key`, with their own places and faults."""
        self.write((key,), other.value, other.places[()])
        for path, at in other.places.items():
            self.places[key, *path] = replace(at, depth=at.depth + 1)
        self.faults += other.faults


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain scalars: `1e-5` is a number; `no`, `12:30`, `017` and dates are not reinterpreted."""


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, None)
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", _NULL, None)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, None)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, None)
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"<<$"), None)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))


class _Dumper(yaml.SafeDumper):
    """Quotes whatever YAML 1.1 or our reader would take for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write repeated values out in full."""
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def dump(value: dict[str, Any]) -> str:
    """YAML text that `parse` reads back to an equal value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


def scalar(text: str) -> Any:
    """The value of one piece of YAML, as given to `--set`.

    Raises:
        yaml.YAMLError: It is no YAML.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _Reader(loader, Place("--set")).build(node, ())
    finally:
        loader.dispose()


def read(path: Path, source: str) -> Document:
    """Parse the YAML file at `path`; messages name it `source`.

    Raises:
        InputError: It cannot be read, is no YAML, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError([Fault(source, "", "must be UTF-8 text, but is not", "Save it as UTF-8")]) from None
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise InputError([Fault(source, "", f"cannot be read: {reason}", "Check the path and its rights")]) from None
    return parse(text, source, path.parent)


def parse(text: str, source: str, folder: Path) -> Document:
    """Parse YAML text whose top level is a mapping.

    Raises:
        InputError: It is no YAML, or holds no mapping.
    """
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise InputError([_no_mapping(node, source)])
        reader = _Reader(loader, Place(source, node.start_mark.line + 1, folder=folder.resolve()))
        return Document(reader.build(node, ()), reader.places, reader.faults)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an explicit !!int or !!float tag on other text
        raise InputError([_syntax_fault(error, source)]) from None
    except RecursionError:
        raise InputError([Fault(source, "", "must not contain itself, but an alias does", "Remove it")]) from None
    finally:
        if loader is not None:
            loader.dispose()


class _Reader:
    """Turns nodes into values, noting where each key stands and which stand twice."""

    def __init__(self, loader: _Loader, root: Place) -> None:
        self.loader = loader
        self.root = root
        self.places: dict[KeyPath, Place] = {(): root}
        self.faults: list[Fault] = []

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        """The value of `node`, found at `path`."""
        match node:
            case yaml.MappingNode():
                return {key: self.build(value, (*path, key)) for key, value in self._entries(node, path)}
            case yaml.SequenceNode():
                return [self._item(value, (*path, index)) for index, value in enumerate(node.value)]
            case _:
                return self.loader.construct_object(node)

    def _item(self, node: yaml.Node, path: KeyPath) -> Any:
        self._mark(path, node)
        return self.build(node, path)

    def _entries(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[str, yaml.Node]]:
        self._report_repeated(node, path)
        self.loader.flatten_mapping(node)
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=key.start_mark)
            self._mark((*path, key.value), key)
            yield key.value, value

    def _mark(self, path: KeyPath, node: yaml.Node) -> None:
        self.places[path] = Place(self.root.source, node.start_mark.line + 1, folder=self.root.folder)

    def _report_repeated(self, node: yaml.MappingNode, path: KeyPath) -> None:
        first: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if (name := str(key.value)) in first:
                where, rule = f"{self.root.source}:{line}", f"appears twice, first on line {first[name]}"
                self.faults.append(Fault(where, dotted((*path, name)), rule, "Keep one of the two"))
            first.setdefault(name, line)


def dotted(path: KeyPath) -> str:
    """A key path as one writes it: `data.seasons[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _no_mapping(node: yaml.Node | None, source: str) -> Fault:
    if node is None:
        return Fault(source, "", "must hold key: value lines, but is empty", "Start from a copy: chronotune cp")
    where = f"{source}:{node.start_mark.line + 1}"
    kind = "a list" if isinstance(node, yaml.SequenceNode) else "a single value"
    return Fault(where, "", f"must hold key: value lines at its top level, but holds {kind}", "Write key: value lines")


def _syntax_fault(error: Exception, source: str) -> Fault:
    if not isinstance(error, yaml.YAMLError):
        return Fault(source, "", "must be plain YAML, but a value does not fit its ! tag", "Remove the tag")
    opened = str(getattr(error, "context", "")).startswith(("while parsing a flow", "while scanning a quoted"))
    marks = [getattr(error, name, None) for name in ("problem_mark", "context_mark")]
    mark = next(filter(None, reversed(marks) if opened else marks), None)
    where = f"{source}:{mark.line + 1}" if mark else source
    rule, remedy = _plain_words(str(getattr(error, "problem", None) or getattr(error, "reason", "unreadable")))
    return Fault(where, "", rule, remedy)


def _plain_words(problem: str) -> tuple[str, str]:
    """Rule and remedy for what PyYAML calls `problem`."""
    known = {
        r"'\\t'": ("must be indented with spaces, but has a tab", "Replace the tab by spaces"),
        "mapping values are not allowed": ("has a second ': ' on one line, or a wrong indentation", "Quote the text"),
        "cannot start any token": (f"is no YAML: {problem}", "Put the value in quotes"),
        "another document": ("must hold one document, but '---' begins another", "Split it into two files"),
        "expected ',' or": ("has a bracket that is never closed", "Close the [ or {"),
        "end of stream": ("has a quote that is never closed", "Close it"),
        "could not determine a constructor": ("must be plain YAML, but has a ! tag", "Remove the tag"),
    }
    found = (words for pattern, words in known.items() if re.search(pattern, problem))
    return next(found, (f"is no YAML: {problem}", "Check indentation, colons and quotes there"))
