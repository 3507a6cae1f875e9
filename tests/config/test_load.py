"""Loading recipes: names, overrides, paths, and the way back to YAML."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bad_inputs import MINIMAL

from chronotune.catalog import entries, find
from chronotune.config.cluster import LOCAL, ClusterProfile
from chronotune.config.load import dump, dump_recipe, load_cluster, load_model, load_recipe, load_space
from chronotune.config.model import Encoding, ModelPreset, Provenance, Serving
from chronotune.config.recipe import stored
from chronotune.config.space import Choice, Fixed, FloatRange, Hyperparameters
from chronotune.data.sources import place
from chronotune.errors import InputError

RECIPES = [entry.name for entry in entries("recipe")]


@pytest.fixture
def recipe_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small recipe in an otherwise empty current directory."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.yaml"
    file.write_text(MINIMAL)
    return file


@pytest.mark.parametrize("name", RECIPES)
def test_round_trip(name: str, tmp_path: Path) -> None:
    """What is dumped loads back to an equal recipe, and dumps to the same text."""
    recipe = load_recipe(name)
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(recipe))
    assert load_recipe(file) == recipe
    assert dump_recipe(load_recipe(tmp_path)) == file.read_text()


def test_round_trip_of_a_point(recipe_file: Path) -> None:
    """A recipe collapsed to one point keeps its learning rate to the last digit."""
    recipe = load_recipe(recipe_file)
    point = Hyperparameters(
        learning_rate=1.2345678901234567e-05,
        windows=4,
        accumulation=1,
        context_length=48,
        covariates="none",
        mode="lora",
        lora_rank=4,
    )
    collapsed = recipe.model_copy(update={"search_space": recipe.search_space.collapse(point)})
    recipe_file.write_text(dump_recipe(collapsed))
    assert load_recipe(recipe_file) == collapsed
    assert f"learning_rate: {point.learning_rate!r}" in recipe_file.read_text()


def test_round_trip_of_an_exported_preset(tmp_path: Path) -> None:
    """Encodings, times and odd category names survive, and the weights beside the file are found."""
    encodings = {"Day of week": Encoding(values={"Mon": 0.1, "1": 1e-07, "no": 2.0, "": 3.0}, unseen=0.5)}
    preset = ModelPreset(
        name="mine",
        weights=".",
        revision="1234e56",
        serving=Serving(
            horizon=24, context_length=96, time="t", target="y", known_future=["Day of week"], encodings=encodings
        ),
        provenance=Provenance(
            created="2026-01-31T12:00:00+01:00",
            base="amazon/chronos-2@main",
            recipe="steel",
            windows_seen=960,
            objective="sql",
            validation_score=0.75,
            chronotune="0.1.0",
        ),
    )
    (tmp_path / "preset.yaml").write_text(dump(preset))
    assert load_model(tmp_path) == preset.model_copy(update={"weights": str(tmp_path)})


def test_names_are_resolved_and_inlined(recipe_file: Path) -> None:
    """Model, space and cluster come from the catalog; nothing of their names remains to look up."""
    recipe = load_recipe(recipe_file)
    assert recipe.model.max_context_length == 2048
    assert recipe.search_space.context_length == load_space("smoke").context_length
    assert recipe.cluster == load_cluster("local")


def test_own_files_come_first(recipe_file: Path) -> None:
    """A space in ./search_spaces hides the shipped one of the same name."""
    own = recipe_file.parent / "search_spaces" / "smoke.yaml"
    own.parent.mkdir()
    own.write_text("learning_rate: 1e-4\nwindows: 2\ncontext_length: 48\n")
    assert load_recipe(recipe_file).search_space.learning_rate == Fixed(value=1e-4)


def test_path_beside_the_recipe(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path in a recipe is relative to the recipe, wherever the command runs."""
    recipe_file.write_text(MINIMAL.replace("smoke", "./mine_space.yaml"))
    (recipe_file.parent / "mine_space.yaml").write_text("learning_rate: 1e-4\nwindows: 2\ncontext_length: 48\n")
    monkeypatch.chdir("/")
    assert load_recipe(recipe_file).search_space.windows == Fixed(value=2)


def test_inline_mappings(recipe_file: Path) -> None:
    """Every part may be written out instead of named."""
    recipe_file.write_text(MINIMAL.replace("local", "{name: mine, cpus_per_trial: 2}"))
    assert load_recipe(recipe_file).cluster == ClusterProfile(name="mine", cpus_per_trial=2)


def test_a_recipe_that_names_no_cluster_runs_here(recipe_file: Path) -> None:
    """By the profile that `cluster: local` names: the shipped one, or the user's own; a key inside it can be set."""
    recipe_file.write_text(recipe_file.read_text().replace("cluster: local\n", ""))
    assert "cluster" not in recipe_file.read_text()
    assert load_recipe(recipe_file).cluster == load_cluster("local") == LOCAL
    assert load_recipe(recipe_file, ["cluster.gpus_per_trial=0"]).cluster.gpus_per_trial == 0
    own = recipe_file.parent / "cluster" / "local.yaml"
    own.parent.mkdir()
    own.write_text("name: local\nmax_concurrent: 1\n")
    assert load_recipe(recipe_file).cluster.max_concurrent == 1


def test_overrides(recipe_file: Path) -> None:
    """Any key can be set, as YAML; inside a named file too, and later ones win."""
    recipe = load_recipe(
        recipe_file,
        [
            "budget.trials=40",
            "budget.trials=41",
            "search_space.learning_rate=1e-4",
            "search_space.context_length={type: choice, values: [24, 48]}",
            "search_space.windows.high=8",
            "model.max_context_length=512",
            "data.known_future=[etr]",
            "tracking.enabled=false",
            "split.stride=12",
            "data.path=",
            "name = other",
        ],
    )
    assert recipe.budget.trials == 41
    assert recipe.search_space.learning_rate == Fixed(value=1e-4)
    assert recipe.search_space.context_length == Choice(values=[24, 48])
    assert recipe.search_space.parameters["windows"].model_dump()["high"] == 8
    assert (recipe.model.name, recipe.model.max_context_length) == ("tiny", 512)
    assert recipe.data.known_future == ["etr"]
    assert (recipe.tracking.enabled, recipe.stride, recipe.data.path, recipe.name) == (False, 12, None, "other")


def test_override_by_name(recipe_file: Path) -> None:
    """A part set by name replaces what was there, settings inside it included."""
    recipe = load_recipe(recipe_file, ["model.max_context_length=512", "model=chronos-2", "search_space=full"])
    assert recipe.model == load_model("chronos-2")
    assert recipe.search_space.name == "full"


def test_override_repairs_a_wrong_name(recipe_file: Path) -> None:
    """A name that does not exist is no fault once it has been replaced."""
    recipe_file.write_text(MINIMAL.replace("tiny", "gone"))
    assert load_recipe(recipe_file, ["model=tiny"]).model.name == "tiny"


def test_bool_and_text_are_no_numbers(recipe_file: Path) -> None:
    """Values are taken as written: neither true nor a quoted number counts as a number."""
    for wrong in ("true", "'4'", "4.0"):
        with pytest.raises(InputError, match=r"budget\.trials: must be a whole number"):
            load_recipe(recipe_file, [f"budget.trials={wrong}"])


def test_weights_beside_their_preset(recipe_file: Path) -> None:
    """A folder beside the YAML file becomes absolute; anything else stays a hub id."""
    folder = recipe_file.parent
    (folder / "weights").mkdir()
    (folder / "own.yaml").write_text("name: own\nweights: weights\n")
    assert load_model("./own.yaml").weights == str(folder / "weights")
    assert load_recipe(recipe_file, ["model=./own.yaml"]).model.weights == str(folder / "weights")
    assert load_recipe(recipe_file, ["model={name: own, weights: ./weights}"]).model.weights == str(folder / "weights")
    assert load_model("chronos-2").weights == "amazon/chronos-2"


def test_data_beside_the_recipe(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data file is found in the current directory, else beside the recipe; either way the path becomes absolute."""
    (recipe_file.parent / "y.csv").touch()
    recipe_file.write_text(MINIMAL.replace("source: solar", "source: file, path: y.csv"))
    assert load_recipe(recipe_file).data.path == str(recipe_file.parent / "y.csv")
    recipe_file.with_name("written.yaml").write_text(dump_recipe(load_recipe(recipe_file)))
    monkeypatch.chdir("/")
    assert load_recipe(recipe_file.with_name("written.yaml")).data.path == str(recipe_file.parent / "y.csv")
    assert load_recipe(recipe_file).data.path == str(recipe_file.parent / "y.csv")


def test_paths_that_are_not_there_are_absolute_too(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the current directory, or from home after a tilde; messages name them from the current directory."""
    recipe_file.write_text(MINIMAL.replace("source: solar", "source: file, path: gone.csv"))
    recipe = load_recipe(recipe_file)
    assert recipe.data.path == str(recipe_file.parent / "gone.csv")
    assert place(recipe.data) == "gone.csv"
    monkeypatch.setenv("HOME", "/home/me")
    assert load_recipe(recipe_file, ["data.path=~/y.csv"]).data.path == "/home/me/y.csv"


def test_sqlite_uri_is_absolute(recipe_file: Path) -> None:
    """A relative database means the same from any directory; other addresses and null stay."""
    uris = {
        "sqlite:///runs/m.db": f"sqlite:///{recipe_file.parent}/runs/m.db",
        "sqlite:////tmp/m.db": "sqlite:////tmp/m.db",
        "http://host:5000": "http://host:5000",
    }
    for written, absolute in uris.items():
        assert load_recipe(recipe_file, [f"tracking.uri={written}"]).tracking.uri == absolute
    assert load_recipe(recipe_file).tracking.uri is None


def test_equal_covariate_sets_are_searched_once(recipe_file: Path) -> None:
    """Without covariates none and known are the same trial, so one of them is dropped."""
    assert load_recipe(recipe_file).search_space.covariates == Fixed(value="none")
    kept = load_recipe(recipe_file, ["data.known_future=[etr]", "search_space=tiny"]).search_space.covariates
    assert kept == Choice(values=["none", "known"])


def test_unconditional_learning_rate(recipe_file: Path) -> None:
    """The YAML 1.1 trap: 1e-4 in a shipped space is a number."""
    assert load_recipe(recipe_file).search_space.learning_rate == FloatRange(low=1e-4, high=1e-3, log=True)


def test_a_path_object_is_always_a_path(recipe_file: Path) -> None:
    """A Path never means a name of the catalog."""
    with pytest.raises(InputError, match="there is no file quickstart"):
        load_recipe(Path("quickstart"))
    assert load_recipe(find("recipe", "smoke")) == load_recipe("smoke")


def test_a_sweep_of_an_earlier_version_runs_on_its_nodes_cluster(recipe_file: Path) -> None:
    """Its `existing` was what `here` is; a file that somebody writes today is refused, with the word for it."""
    old = {"name": "existing", "kind": "existing", "address": "auto", "cpus_per_trial": 4}
    profile = "{name: existing, kind: existing, address: auto, cpus_per_trial: 4}"
    with pytest.raises(InputError, match=r"must be the cluster's dashboard .* but is auto"):
        load_recipe(recipe_file, [f"cluster={profile}"])
    text = dump_recipe(load_recipe(recipe_file))
    own = recipe_file.with_name("recipe.yaml")
    own.write_text(re.sub(r"^cluster:.*\n(  .*\n)*", f"cluster: {profile}\n", text, flags=re.MULTILINE))
    meant = ClusterProfile(name="existing", kind="here", address="auto", cpus_per_trial=4)
    assert load_recipe(own).cluster == meant
    assert stored({**load_recipe(recipe_file).model_dump(mode="json"), "cluster": old}).cluster == meant
    assert load_recipe(own, ["cluster=existing"]).cluster.kind == "existing"


def test_a_null_that_was_chosen_is_written_out(tmp_path: Path) -> None:
    """Where the default is another: left out, it would be that when the file is read."""
    recipe = load_recipe("smoke", ["budget.stuck_minutes=null"])
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "recipe.yaml").budget.stuck_minutes is None
    assert "patience" not in (tmp_path / "recipe.yaml").read_text()
