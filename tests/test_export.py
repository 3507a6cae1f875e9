"""Exports: their names, their base, and that none overwrites another. No training."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from chronotune.catalog import Entry
from chronotune.checkpoint import sha256
from chronotune.config.load import dump_recipe, load_model, load_recipe
from chronotune.config.recipe import Recipe
from chronotune.data.prepare import load
from chronotune.errors import InputError
from chronotune.export import (
    collapsed,
    export_winner,
    free_folder,
    made_of_several,
    numbered,
    pinned,
    preset_text,
    write_declarations,
)
from chronotune.train import _scratch, train_recipe
from sweep_parts import POINT, judged_sweep, small_recipe
from test_cli import run


def test_a_sweep_pins_what_its_recipe_names(tmp_path: Path) -> None:
    """The weights of a folder by their SHA-256, so that it is not resumed on others; a revision that is named stays."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    recipe = pinned(small_recipe(tmp_path, early_stopping={}))
    assert recipe.model.revision == sha256(tmp_path / "model.safetensors")
    assert recipe.early_stopping.grace == recipe.grace
    (tmp_path / "model.safetensors").write_bytes(b"others")
    assert pinned(recipe).model.revision == recipe.model.revision


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


def test_training_a_part_of_what_was_exported_is_told(tmp_path: Path) -> None:
    """An average and a blend are more than the training in the recipe beside them; a training's own weights are not."""
    head = "name: solar\nweights: .\n"
    averaged = (
        "provenance: {created: 2026-01-01T00:00:00Z, base: tiny, recipe: solar, windows_seen: 27, objective: sql, "
        "chronotune: 0.1.0, averaged: AVERAGED}\n"
    )
    blend = "members:\n- {folder: ., weight: 0.5, context_length: 96}\n- {folder: a, weight: 0.5, context_length: 96}\n"
    (tmp_path / "recipe.yaml").touch()
    assert made_of_several(tmp_path / "recipe.yaml") is None
    told = {"": None, averaged.replace("AVERAGED", "[]"): None, averaged.replace("AVERAGED", "[a, b]"): "an average"}
    for text, expected in {**told, blend: "a blend"}.items():
        (tmp_path / "preset.yaml").write_text(head + text)
        assert made_of_several(tmp_path / "recipe.yaml") == expected


def test_an_older_export_is_trained_again_with_its_covariates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with one that a recipe of now would be refused for; that one says whom it trusts."""
    trusted: list[list[str]] = []

    def stop(recipe: Recipe) -> None:
        trusted.append(recipe.data.trust_known_future)
        raise KeyboardInterrupt

    monkeypatch.setattr("chronotune.train.load", stop)
    exported = dump_recipe(collapsed(small_recipe(), POINT, 27))
    older, count = re.subn(r"  trust_known_future: \[\]\n", "", exported)
    assert count == 1
    for text in (exported, older, re.sub("stop_at: 27", "stop_at: null", older)):
        (tmp_path / "recipe.yaml").write_text(text)
        with pytest.raises(KeyboardInterrupt):
            train_recipe(load_recipe(tmp_path / "recipe.yaml"), tmp_path / "again")
    assert trusted == [[], ["etr"], []]


def test_the_winner_of_a_long_recipe_has_a_valid_name() -> None:
    """Shortened to what a name may be long."""
    assert numbered("steel", 12) == "steel-12"
    assert numbered("x" * 80, 123) == "x" * 76 + "-123"


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


def test_a_winner_that_ships_is_exported(tmp_path: Path) -> None:
    """Under its new name, with the verdict in its provenance, and what its training saw of the data's steps."""
    exported = export_winner(judged_sweep(tmp_path / "one", "ship the challenger"), tmp_path / "mine")
    preset = load_model(exported)
    assert preset.provenance is not None
    assert preset.serving is not None
    assert (preset.name, preset.provenance.forced) == ("mine", False)
    assert preset.provenance.verdict == "ship the challenger: so they say"
    assert preset.serving.step == timedelta(hours=1)
    assert (exported / "model.safetensors").read_bytes() == b"weights"
    command, about, *_ = (exported / "preset.yaml").read_text().splitlines()
    assert command == "# chronotune forecast models/mine FILE.csv"
    assert about == ("# ghi, 24 steps ahead; tuned from small, trial 0 of small; ship the challenger: so they say")


def test_an_export_says_what_it_is_in_one_line_whatever_its_target_is_called(tmp_path: Path) -> None:
    """What `ls` shows of it, and no more of the file than that is a comment."""
    preset = load_model(export_winner(judged_sweep(tmp_path / "one", "keep zero-shot"), tmp_path / "mine", force=True))
    assert preset.serving is not None
    odd = preset.model_copy(update={"serving": preset.serving.model_copy(update={"target": "a\nname: b"})})
    path = tmp_path / "models" / "odd" / "preset.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(preset_text(odd))
    assert load_model(path).serving == odd.serving
    assert load_model(path).name == "mine"
    assert Entry("model", "odd", path).summary.startswith("a name: b, 24 steps ahead; ")
    assert "exported by force" in Entry("model", "odd", path).summary


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        ("keep zero-shot", "the verdict is to keep zero-shot: so they say"),
        ("not enough test windows", "there is no verdict: not enough test windows: so they say"),
        (None, "the winner has no verdict, because the test windows were not evaluated"),
    ],
)
def test_what_is_not_better_is_exported_by_force_only(tmp_path: Path, decision: str | None, words: str) -> None:
    """The refusal tells the verdict and what to use instead; what is forced says so."""
    sweep = judged_sweep(tmp_path / "one", decision)
    with pytest.raises(InputError, match=f"{words}. Use small as it is, with context 48 and covariates none, or"):
        export_winner(sweep, tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    preset = load_model(export_winner(sweep, tmp_path / "mine", force=True))
    assert preset.provenance is not None
    assert preset.provenance.forced
    assert preset.provenance.verdict == (decision and f"{decision}: so they say")


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("digest", ["b" * 64, None])
def test_what_the_study_does_not_name_is_not_exported(tmp_path: Path, digest: str | None, force: bool) -> None:
    """A driver that was killed between writing a new winner and naming it left the old verdict."""
    sweep = judged_sweep(tmp_path / "one", "ship the challenger")
    preset, weights = sweep / "winner/preset.yaml", sweep / "winner/model.safetensors"
    if digest is None:
        weights.write_bytes(b"another")
    else:
        preset.write_text(preset.read_text().replace(sha256(weights), digest))
    with pytest.raises(InputError, match="only the winner that the study names is exported"):
        export_winner(sweep, tmp_path / "mine", force)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_the_command_refuses_with_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is the user's input that lacks --force."""
    sweep, to = judged_sweep(tmp_path / "one", "keep zero-shot"), str(tmp_path / "mine")
    code, _, err = run(capsys, "export", str(sweep), "--to", to)
    assert code == 2
    assert "--force" in err
    assert run(capsys, "export", str(sweep), "--to", to, "--force") == (0, f"{to}\n", "")
