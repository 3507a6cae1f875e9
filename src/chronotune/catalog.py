"""Names to files: the shipped declarations, and the user's own beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, TypeAlias

from chronotune.errors import ChronotuneError, Fault, InputError

Kind: TypeAlias = Literal["recipe", "space", "model", "cluster"]

FOLDERS: dict[Kind, str] = {"recipe": "tuning", "space": "search_spaces", "model": "models", "cluster": "cluster"}
NOUNS: dict[Kind, str] = {"recipe": "recipe", "space": "search space", "model": "model", "cluster": "cluster profile"}

# what export writes into one folder, and what that folder means as a model or as a recipe
_INSIDE: dict[Kind, str] = {"model": "preset.yaml", "recipe": "recipe.yaml"}


@dataclass(frozen=True)
class Entry:
    """One declaration that can be given by name."""

    kind: Kind
    name: str
    """Its path inside the kind's folder without `.yaml`; an exported model has the name of its folder."""
    path: Path

    @property
    def summary(self) -> str:
        """What it is for: the second comment line of the file (the first is the command that runs it)."""
        with self.path.open(encoding="utf-8-sig", errors="replace") as lines:
            opening = [next(lines, ""), next(lines, "")]
        return opening[1].removeprefix("#").strip() if opening[1].startswith("#") else ""


def shipped_root() -> Path:
    """The folder that holds the four shipped folders: inside the wheel, or the root of the repository.

    Raises:
        ChronotuneError: The installation carries neither.
    """
    package = Path(__file__).resolve().parent
    for root in (package / "_shipped", package.parents[1]):
        if (root / FOLDERS["recipe"]).is_dir():
            return root
    raise ChronotuneError("this installation lacks the shipped recipes; install chronotune from its wheel again")


def roots() -> list[Path]:
    """Where the four folders are looked for: the current directory first, then what is shipped."""
    return list(dict.fromkeys([Path.cwd(), shipped_root()]))


def entries(kind: Kind) -> list[Entry]:
    """All declarations of `kind` by name; the user's own hide shipped ones of the same name."""
    found: dict[str, Entry] = {}
    for root in roots():
        for entry in _scan(kind, root / FOLDERS[kind]):
            found.setdefault(entry.name, entry)
    return sorted(found.values(), key=lambda entry: entry.name)


def find(kind: Kind, name: str | Path) -> Path:
    """The file that `name` stands for: a path, or an entry of the catalog.

    A path (see `is_path`) may be a folder that export wrote (its preset or recipe is meant) or that of a sweep (its
    recipe).

    Raises:
        InputError: There is none; names the nearest ones.
    """
    if is_path(name) and (path := _file_at(kind, Path(name).expanduser())):
        return path
    known = {entry.name: entry.path for entry in entries(kind)}
    if isinstance(name, str) and name in known:
        return known[name]
    raise InputError([_unknown(kind, name, list(known))])


def is_path(name: str | Path) -> bool:
    """Whether `name` is meant as a path: a `Path`, or text that holds a slash or ends in .yaml."""
    return isinstance(name, Path) or "/" in name or "\\" in name or name.endswith((".yaml", ".yml"))


def display(path: Path) -> str:
    """`path` as a user would name it: relative to the current directory or to the shipped files when inside."""
    absolute = path.resolve()
    for root in roots():
        if absolute.is_relative_to(root):
            return absolute.relative_to(root).as_posix()
    return str(path)


def nearest(word: str, words: list[str]) -> list[str]:
    """Up to three of `words` that `word` may have been meant to be."""
    return get_close_matches(word, words, n=3, cutoff=0.5)


def _scan(kind: Kind, folder: Path) -> Iterator[Entry]:
    for path in sorted(folder.rglob("*.yaml")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts) or (kind == "cluster" and inside.parts[0] == "launch"):
            continue  # unfinished exports; what Ray, Kubernetes and compose read
        if kind == "model" and "members" in inside.parts[:-1]:
            continue  # parts of a blend
        if path.name in _INSIDE.values():
            if path.name == _INSIDE.get(kind) and len(inside.parts) > 1:
                yield Entry(kind, inside.parent.as_posix(), path)
        else:
            yield Entry(kind, inside.with_suffix("").as_posix(), path)


def _file_at(kind: Kind, path: Path) -> Path | None:
    """The declaration at `path`, which may be the folder of an export or of a sweep."""
    if path.is_dir() and kind in _INSIDE:
        path = path / _INSIDE[kind]
    return path if path.is_file() else None


def _unknown(kind: Kind, name: str | Path, known: list[str]) -> Fault:
    if is_path(name):
        return Fault(NOUNS[kind], "", f"there is no file {name}", "Check the path, or give a name from `chronotune ls`")
    close = nearest(str(name), known)
    remedy = f"Did you mean {' or '.join(close)}?" if close else f"Known are {', '.join(known)}"
    return Fault(NOUNS[kind], "", f"there is no {NOUNS[kind]} named {str(name)!r}", remedy)


def copy(name: str, to: Path | None = None) -> Path:
    """Copy a declaration, to make it one's own.

    Args:
        name: Of any kind; with its folder, e.g. `models/tiny`, when several kinds have the name.
        to: The new file; by default the same folder and name in the current directory.

    Returns:
        The new file.

    Raises:
        InputError: There is no such declaration, there are several, or the file exists.
    """
    everything = {f"{FOLDERS[kind]}/{entry.name}": entry for kind in FOLDERS for entry in entries(kind)}
    wanted = name.removesuffix(".yaml")
    matching = [key for key, entry in everything.items() if wanted in (key, entry.name)]
    if len(matching) != 1:
        rule = f"must name one declaration, but {name!r} is {' and '.join(matching) or 'none'}"
        remedy = f"Write one of these: {', '.join(matching or nearest(wanted, list(everything)) or sorted(everything))}"
        raise InputError([Fault("cp", "", rule, remedy)])
    entry = everything[matching[0]]
    to = to or Path(f"{matching[0]}.yaml")
    if to.exists():
        raise InputError([Fault("cp", "", f"never overwrites, but {to} exists", "Name another file, or remove it")])
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(_as_own(_anchored(entry.path), f"{matching[0]}.yaml", to), encoding="utf-8")
    return to


def _as_own(text: str, before: str, to: Path) -> str:
    """The text of a declaration under its new name, which its sweeps are called by; so is the command on top."""
    name = to.parent.name if to.name in _INSIDE.values() else to.stem
    first, end, rest = text.partition("\n")
    return first.replace(before, str(to)) + end + re.sub(r"(?m)^name: .*$", f"name: {name}", rest, count=1)


def _anchored(path: Path) -> str:
    """The text of a declaration; weights that lie beside it are still found from elsewhere."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines):
        words = line.partition("#")[0].split()
        if words[:1] == ["weights:"] and (folder := path.parent / words[1]).is_dir():
            lines[number] = f"weights: {folder.resolve()}\n"
    return "".join(lines)
