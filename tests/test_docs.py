"""What is not documented, or documented and not there, fails here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import BaseModel

import chronotune
from chronotune.cli import app
from chronotune.config.cluster import ClusterProfile
from chronotune.config.model import ModelPreset
from chronotune.config.recipe import Recipe
from chronotune.config.space import Choice, Fixed, FloatRange, IntRange, SearchSpace

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(path for path in ROOT.glob("**/*.md") if not {".venv", "sweeps"} & set(path.parts))
COMMANDS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_lists_every_command(command: str) -> None:
    """In its table of commands."""
    assert re.search(rf"^\| `chronotune {command}\b", README, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_its_help(command: str) -> None:
    """Arguments too."""
    assert COMMANDS[command].help
    for parameter in COMMANDS[command].params:
        assert getattr(parameter, "help", None) or parameter.name == "help", parameter.name


@pytest.mark.parametrize("name", chronotune.__all__)
def test_the_readme_names_the_public_api(name: str) -> None:
    """From Python the same as from the command line."""
    assert name in README


def _fields(declaration: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[tuple[str, str | None]]:
    seen.add(declaration)
    for name, field in declaration.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            if part not in seen:
                yield from _fields(part, seen)
        elif name != "type":
            yield f"{declaration.__name__}.{name}", field.description


KINDS = (Recipe, SearchSpace, ModelPreset, ClusterProfile, FloatRange, IntRange, Choice, Fixed)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_key_is_explained_beside_its_field(kind: type[BaseModel]) -> None:
    """So that the JSON Schema explains it in the editor."""
    silent = [name for name, description in _fields(kind, set()) if not description]
    assert not silent


def _commands_in(text: str) -> Iterator[tuple[str, list[str]]]:
    for block in re.findall(r"```(?:bash|console|sh)?\n(.*?)```|`(chronotune [^`\n]+)`", text, re.DOTALL):
        for line in "\n".join(block).splitlines():
            words = line.removeprefix("$ ").partition("#")[0].split()
            if words[:1] == ["chronotune"] and len(words) > 1:
                yield words[1], [word.partition("=")[0] for word in words[2:] if word.startswith("--")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_commands_on_a_page_exist(page: Path) -> None:
    """With their options."""
    for command, options in _commands_in(page.read_text(encoding="utf-8")):
        if command.startswith("-"):
            continue
        assert command in COMMANDS, command
        known = {option for parameter in COMMANDS[command].params for option in parameter.opts} | {"--help"}
        assert set(options) <= known, (command, options)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_links_on_a_page_lead_somewhere(page: Path) -> None:
    """Relative ones."""
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_architecture_names_every_module() -> None:
    """And no other."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for path in (ROOT / "src/chronotune").glob("*.py"):
        if not path.stem.startswith("__"):
            assert path.stem in text, path.name
    for name in re.findall(r"`([a-z_/]+\.py)`", text):
        places = [ROOT / "src/chronotune" / name, ROOT / name, ROOT / "src/chronotune/data" / name]
        assert any(place.exists() for place in places), name


def test_the_readme_s_tree_is_there() -> None:
    """Each folder and file that its tree shows."""
    [tree] = re.findall(r"```text\n(tuning/.*?)```", README, re.DOTALL)
    for name in re.findall(r"^([A-Za-z_./-]+)  ", tree, re.MULTILINE):
        assert (ROOT / name).exists(), name
