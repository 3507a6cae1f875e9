"""Every shipped declaration, found by glob: it loads, says how it is run, and keeps what its folder promises."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from chronotune.catalog import FOLDERS, Entry, Kind, entries, shipped_root
from chronotune.checkpoint import sha256
from chronotune.config.cluster import ClusterProfile
from chronotune.config.load import load_cluster, load_model, load_recipe, load_space
from chronotune.config.model import ModelPreset
from chronotune.config.recipe import Recipe
from chronotune.config.space import SearchSpace, extremes

ROOT = Path(__file__).parents[1]
LOADERS: dict[Kind, Callable[[Path], Recipe | SearchSpace | ModelPreset | ClusterProfile]] = {
    "recipe": load_recipe,
    "space": load_space,
    "model": load_model,
    "cluster": load_cluster,
}
SHIPPED = [
    Entry(kind, path.stem, path)
    for kind, folder in FOLDERS.items()
    for path in sorted((ROOT / folder).glob("*.yaml"))
]  # fmt: skip
RECIPES = [entry for entry in SHIPPED if entry.kind == "recipe"]


def _id(entry: Entry) -> str:
    return f"{entry.kind}-{entry.name}"


def test_catalog_knows_them() -> None:
    """The catalog finds the files of this repository, each kind some."""
    assert shipped_root() == ROOT
    for kind in FOLDERS:
        names = {entry.name for entry in SHIPPED if entry.kind == kind}
        assert names
        assert names <= {entry.name for entry in entries(kind)}


@pytest.mark.parametrize("entry", SHIPPED, ids=_id)
def test_loads_under_its_name(entry: Entry) -> None:
    """Each file is valid, and the name inside is the name of the file."""
    assert LOADERS[entry.kind](entry.path).name == entry.name


@pytest.mark.parametrize("entry", SHIPPED, ids=_id)
def test_opens_with_its_command(entry: Entry) -> None:
    """The first line is a command that uses the file and works as written; the second says what it is for."""
    first = entry.path.read_text().splitlines()[0]
    command = re.fullmatch(r"# chronotune run (tuning/\w+\.yaml)((?: --set \S+=\S+)*)", first)
    assert command, first
    recipe = load_recipe(ROOT / command[1], command[2].split(" --set ")[1:])
    used = {"recipe": recipe.name, "space": recipe.search_space.name, "model": recipe.model.name}
    assert {**used, "cluster": recipe.cluster.name}[entry.kind] == entry.name
    assert len(entry.summary) > 20


@pytest.mark.parametrize("entry", SHIPPED, ids=_id)
def test_stands_in_the_table(entry: Entry) -> None:
    """The README of its folder has a row for it."""
    assert f"| `{entry.name}.yaml` |" in (entry.path.parent / "README.md").read_text()


@pytest.mark.parametrize("kind", list(FOLDERS))
def test_tables_name_only_what_is_there(kind: Kind) -> None:
    """No row is left of a file that is gone."""
    folder = ROOT / FOLDERS[kind]
    assert all(
        (folder / name).is_file() for name in re.findall(r"^\| `(\S+)`", (folder / "README.md").read_text(), re.M)
    )


@pytest.mark.parametrize("entry", RECIPES, ids=_id)
def test_table_tells_the_budget(entry: Entry) -> None:
    """Trials and windows in the README are those of the recipe."""
    budget = load_recipe(entry.path).budget
    row = next(line for line in (ROOT / "tuning" / "README.md").read_text().splitlines() if f"`{entry.name}.y" in line)
    assert f"| {budget.trials} x {budget.windows} |" in row


def _steps(recipe: Recipe) -> float:
    """Optimizer steps at full budget for the point that takes the fewest."""
    space = recipe.search_space
    batch: int = max(extremes(space.windows)) * max(extremes(space.accumulation))
    return recipe.budget.windows / batch


@pytest.mark.parametrize(
    ("name", "overrides"),
    [("quickstart", []), ("steel", []), ("steel", ["model=chronos-2", "search_space=full"]), ("steel_lora", [])],
)
def test_every_point_gets_twenty_steps(name: str, overrides: list[str]) -> None:
    """At full budget even the largest batch of the space leaves at least 20 optimizer steps."""
    assert _steps(load_recipe(name, overrides)) >= 20


@pytest.mark.parametrize("name", ["quickstart", "steel"])
def test_cpu_recipes_stay_small(name: str) -> None:
    """Recipes for 2 cores keep to what a core can do: context 1008, 16 windows, accumulation 2."""
    recipe = load_recipe(name)
    space = recipe.search_space
    assert recipe.model.name == "tiny"
    assert max(extremes(space.context_length)) <= 1008
    assert max(extremes(space.windows)) <= 16
    assert max(extremes(space.accumulation)) <= 2


@pytest.mark.parametrize("name", ["tiny", "full"])
def test_spaces_search_everything(name: str) -> None:
    """The general spaces leave no dimension fixed."""
    assert [key for key, parameter in load_space(name).parameters.items() if len(extremes(parameter)) < 2] == []


@pytest.mark.parametrize("name", ["steel", "steel_lora"])
def test_steel_does_not_leak(name: str) -> None:
    """What is measured together with the target is past-only, and the late label is not used at all."""
    data = load_recipe(name).data
    assert set(data.known_future) == {"NSM", "WeekStatus", "Day_of_week"}
    assert len(data.past_only) == 5
    assert "Load_Type" not in data.sets["all"]
    assert (
        "Load_Type"
        in load_recipe(name, ["data.known_future=[NSM, WeekStatus, Day_of_week, Load_Type]"]).data.sets["all"]
    )


def test_both_steel_recipes_read_the_same() -> None:
    """The two steel recipes differ in model and budget, not in the data."""
    assert load_recipe("steel").data == load_recipe("steel_lora").data


def test_steel_columns_exist(steel_csv: Path) -> None:
    """Every declared column is in the file as UCI publishes it."""
    header = steel_csv.read_text(encoding="utf-8-sig").partition("\n")[0].strip().split(",")
    data = load_recipe("steel").data
    assert {data.time, data.target, *data.past_only, *data.known_future} <= set(header)


@pytest.mark.parametrize("name", ["quickstart", "smoke"])
def test_solar_columns_exist(name: str) -> None:
    """Every declared column is in the embedded data."""
    from chronotune.data.sources import read

    data = load_recipe(name).data
    assert set(read(data).columns) == {data.time, data.target, *data.past_only, *data.known_future}


def test_smoke_leaves_no_trace() -> None:
    """The recipe of the tests sends nothing to MLflow."""
    assert load_recipe("smoke").tracking.enabled is False


def test_hub_models_are_pinned() -> None:
    """A preset of somebody else's weights names one exact commit."""
    for entry in (entry for entry in SHIPPED if entry.kind == "model"):
        model = load_model(entry.path)
        if not Path(model.weights).is_absolute():
            assert re.fullmatch(r"[0-9a-f]{40}", model.revision or ""), entry.name


def test_tiny_is_beside_its_preset() -> None:
    """The embedded weights are found from any directory, and take the context that the preset says."""
    assert load_model("tiny").weights == str(ROOT / "models" / "tiny")


def test_tiny_is_pinned() -> None:
    """The preset names the SHA-256 of the weights that are there, so that exports name their base exactly."""
    assert load_model("tiny").revision == sha256(ROOT / "models" / "tiny" / "model.safetensors")
