"""Every mistake in a YAML file or a `--set` gets one exact, helpful message."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_inputs import MINIMAL, BadInput, bad_inputs

from chronotune.config.load import load_cluster, load_model, load_recipe, load_space
from chronotune.errors import InputError

JARGON = ("pydantic", "input should", "value error", "valid dictionary", "discriminator", "traceback", "extra inputs")


def _messages(folder: Path, text: str, *overrides: str) -> list[str]:
    file = folder / "my.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_recipe(file, overrides)
    return list(map(str, caught.value.faults))


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_minimal_is_fine(tmp_path: Path) -> None:
    """The recipe that the table spoils is itself right."""
    (tmp_path / "my.yaml").write_text(MINIMAL)
    assert load_recipe("my.yaml").budget.trials == 4


@pytest.mark.parametrize("row", bad_inputs(), ids=lambda row: row.title)
def test_message(tmp_path: Path, row: BadInput) -> None:
    """Each row gets its message and no other fault."""
    assert _messages(tmp_path, row.text, *row.overrides) == [row.message]


@pytest.mark.parametrize("row", bad_inputs(), ids=lambda row: row.title)
def test_no_jargon(tmp_path: Path, row: BadInput) -> None:
    """No message speaks of the library that found the mistake."""
    spoken = " ".join(_messages(tmp_path, row.text, *row.overrides)).lower()
    assert not [word for word in JARGON if word in spoken]


def test_all_faults_of_all_files_at_once(tmp_path: Path) -> None:
    """Faults of the recipe, of three files that it names and of --set come together, sorted by file and line."""
    (tmp_path / "m.yaml").write_text("# no name\nweight: there\n")
    (tmp_path / "s.yaml").write_text("learning_rate: fast\nwindows: 4\ncontext_length: {type: int, low: 48}\n")
    (tmp_path / "c.yaml").write_text("name: c\nkind: [local\n")
    text = MINIMAL.replace("tiny", "./m.yaml").replace("smoke", "./s.yaml").replace("local", "./c.yaml")
    assert _messages(tmp_path, text.replace("horizon: 24", "horizon: 0"), "seed=-1") == [
        "--set: seed: must be at least 0, but got -1. Give a number at least 0",
        "c.yaml:2: has a bracket that is never closed. Close the [ or {",
        "m.yaml:2: name: is required, but missing. Add it: For display, and in the names of what is exported",
        "m.yaml:2: weight: is not a known key. Did you mean weights?",
        "my.yaml:3: horizon: must be above 0, but got 0. Give a number above 0",
        "s.yaml:3: context_length.high: is required, but missing. Add it: Largest value",
    ]


def test_rules_of_a_space_come_together(tmp_path: Path) -> None:
    """A search space names all its unusable values, each at its line."""
    (tmp_path / "s.yaml").write_text(
        "learning_rate: fast\nwindows: {type: float, low: 2, high: 4}\naccumulation: {type: fixed, value: 1, when:"
        " {mode: lora}}\ncontext_length: 48\nmode: half\nlora_rank: {type: fixed, value: 4, when: {made: lora}}\n"
    )
    with pytest.raises(InputError) as caught:
        load_space("./s.yaml")
    assert list(map(str, caught.value.faults)) == [
        "s.yaml:1: learning_rate: must be a number above 0, but reaches fast. Change it",
        "s.yaml:2: windows: must be a whole number of at least 1, but reaches 2.0, 4.0."
        " For whole numbers use type: int",
        "s.yaml:3: accumulation.when: is for lora_rank only: every trial needs the others. Remove it",
        "s.yaml:5: mode: must be full or lora, but reaches half. Change it",
        "s.yaml:6: lora_rank.when: must name another parameter of the space, but names 'made'. Use {mode: lora}",
    ]


def test_single_files(tmp_path: Path) -> None:
    """Models and clusters read alone get the same kind of message."""
    (tmp_path / "m.yaml").write_text("name: m\nweights: 3\n")
    with pytest.raises(InputError, match=r'^m.yaml:2: weights: must be text, but got 3. Put it in quotes: "3"$'):
        load_model("m.yaml")
    (tmp_path / "c.yaml").write_text("name: c\nkind: existing\nsweeps: /mnt/sweeps\n")
    with pytest.raises(InputError, match=r"^c.yaml:1: address: must be the cluster's dashboard .*, but is missing"):
        load_cluster(Path("c.yaml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: \xff\xfe\n", "my.yaml: must be UTF-8 text, but is not. Save it as UTF-8"),
        (b"a: &a [*a]\n", "my.yaml: must not contain itself, but an alias does. Remove it"),
        (b"a: !!python/object:os.system ls\n", "my.yaml:1: must be plain YAML, but has a ! tag. Remove the tag"),
        (b"a: !!int three\n", "my.yaml: must be plain YAML, but a value does not fit its ! tag. Remove the tag"),
        (
            b"? [1, 2]\n: 3\n",
            "my.yaml:1: is no YAML: a key must be plain text. Check indentation, colons and quotes there",
        ),
    ],
    ids=["not-utf-8", "self-alias", "object-tag", "false-int", "list-as-key"],
)
def test_hostile_files(tmp_path: Path, content: bytes, message: str) -> None:
    """Bytes that are no recipe at all are refused in words, and no object is made from a tag."""
    (tmp_path / "my.yaml").write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_recipe("./my.yaml")
    assert str(caught.value) == message


def test_missing_file() -> None:
    """A path that is not there is named."""
    with pytest.raises(InputError, match=r"^recipe: there is no file nowhere/my.yaml. Check the path, or give a name"):
        load_recipe("nowhere/my.yaml")
