"""Names to files: the user's own first, then what is shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from chronotune.catalog import FOLDERS, Kind, copy, display, entries, find, shipped_root
from chronotune.config.load import load_model, load_recipe
from chronotune.errors import InputError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _make(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_shipped_names(home: Path) -> None:
    """From any directory the shipped files are there by name."""
    assert {"quickstart", "steel", "steel_lora", "smoke"} <= {entry.name for entry in entries("recipe")}
    assert find("model", "tiny") == shipped_root() / "models" / "tiny.yaml"


@pytest.mark.parametrize("kind", list(FOLDERS))
def test_own_files_first(home: Path, kind: Kind) -> None:
    """A file of the user's hides a shipped one of the same name, in folders below too."""
    shipped = entries(kind)[0].name
    own = home / FOLDERS[kind]
    _make(own / f"{shipped}.yaml", own / "below" / "new.yaml")
    assert find(kind, shipped) == own / f"{shipped}.yaml"
    assert find(kind, "below/new") == own / "below" / "new.yaml"


def test_exports_are_models(home: Path) -> None:
    """An exported folder is a model of its own name; its recipe and its members are none, and a draft is nothing."""
    export = home / "models" / "mine"
    _make(export / "preset.yaml", export / "recipe.yaml", home / "models" / ".other.draft" / "preset.yaml")
    _make(export / "members" / "zero-shot" / "preset.yaml")
    names = [entry.name for entry in entries("model")]
    assert "mine" in names
    assert not [n for n in names if "recipe" in n or "draft" in n or "preset" in n or "members" in n]
    assert find("model", "mine") == find("model", "./models/mine").resolve() == export / "preset.yaml"
    assert find("recipe", "models/mine").resolve() == export / "recipe.yaml"


def test_launch_files_are_no_profiles(home: Path) -> None:
    """What Ray, Kubernetes and compose read lies in cluster/launch and is not listed."""
    _make(home / "cluster" / "launch" / "kuberay.yaml")
    assert not [entry.name for entry in entries("cluster") if "kuberay" in entry.name]


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("recipe", "stel", "there is no recipe named 'stel'. Did you mean steel"),
        ("space", "lore", "there is no search space named 'lore'. Did you mean lora"),
        ("cluster", "zzz", "there is no cluster profile named 'zzz'. Known are existing, here, local"),
        ("recipe", "steel.yaml", "there is no file steel.yaml. Check the path"),
    ],
)
def test_unknown(home: Path, kind: Kind, name: str, message: str) -> None:
    """An unknown name is answered with the nearest ones, a wrong path with itself."""
    with pytest.raises(InputError, match=message) as caught:
        find(kind, name)
    assert caught.value.exit_code == 2


def test_display(home: Path) -> None:
    """Messages name files as the user would: relative where that is shorter."""
    assert display(shipped_root() / "tuning" / "steel.yaml") == "tuning/steel.yaml"
    assert display(home / "a" / "b.yaml") == "a/b.yaml"
    assert display(Path("/elsewhere/b.yaml")) == "/elsewhere/b.yaml"


def test_copy(home: Path) -> None:
    """A copy is one's own: it loads under its name, its weights are still found, and nothing is overwritten."""
    assert copy("models/tiny") == Path("models/tiny.yaml")
    assert find("model", "tiny") == home / "models" / "tiny.yaml"
    assert load_model("tiny").weights == str(shipped_root() / "models" / "tiny")
    with pytest.raises(InputError, match="never overwrites"):
        copy("models/tiny")
    with pytest.raises(InputError, match="is search_spaces/tiny and models/tiny"):
        copy("tiny")


def test_a_copy_has_its_own_name(home: Path) -> None:
    """Its sweeps are called by it, and the command on top starts it."""
    mine = copy("quickstart", home / "plant" / "mine.yaml")
    assert load_recipe(mine).name == "mine"
    assert mine.read_text().startswith(f"# chronotune run {mine}\n")
