"""Exports: their names, their base, and that none overwrites another. No training."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chronotune.checkpoint import sha256
from chronotune.config.load import load_model, load_recipe
from chronotune.data.prepare import load
from chronotune.errors import InputError
from chronotune.export import _numbered, export_winner, free_folder, write_declarations
from chronotune.train import _scratch, train_recipe
from sweep_parts import POINT, small_recipe


def test_a_free_folder_is_free(tmp_path: Path) -> None:
    """Many exports within one second get as many names."""
    names = set()
    for _ in range(4):
        folder = free_folder(tmp_path / "solar")
        folder.mkdir()
        names.add(folder.name)
    assert len(names) == 4
    assert all(re.fullmatch(r"solar(-\d{8}-\d{6}(-\d)?)?", name) for name in names)


@pytest.mark.parametrize("to", ["models/my model", "models/.hidden", ".", "models/" + "x" * 80])
def test_a_bad_name_is_refused_first(to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By export and by train, before anything else is looked at or written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="must end in a name of letters"):
        export_winner("nowhere", to)
    with pytest.raises(InputError, match="must end in a name of letters"):
        train_recipe(small_recipe(), to)
    assert list(tmp_path.iterdir()) == []


def test_training_keeps_its_checkpoints_beside_the_model(tmp_path: Path) -> None:
    """Hidden, on the disk that the model will be on, and gone at the end."""
    with _scratch(tmp_path / "mine") as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith(".")
    assert list(tmp_path.iterdir()) == []


def test_the_winner_of_a_long_recipe_has_a_valid_name() -> None:
    """Shortened to what a name may be long."""
    assert _numbered("steel", 12) == "steel-12"
    assert _numbered("x" * 80, 123) == "x" * 76 + "-123"


def test_an_export_pins_its_base(tmp_path: Path) -> None:
    """Provenance and the exported recipe name the base weights by their SHA-256 although the preset did not."""
    base, folder = tmp_path / "base", tmp_path / "mine"
    for path in (base, folder):
        path.mkdir()
        (path / "model.safetensors").write_text(path.name)
    recipe = small_recipe(base)
    write_declarations(folder, recipe, POINT, load(recipe).panel, name="mine", windows_seen=27, score=0.5, trial=None)
    digest, preset = sha256(base / "model.safetensors"), load_model(folder)
    assert preset.provenance is not None
    assert preset.provenance.base == f"small@{digest}"
    assert load_recipe(folder).model.revision == digest
