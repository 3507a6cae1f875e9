"""The command line: what it costs, what it says, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from chronotune import __version__
from chronotune.cli import app, main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command, run in this process."""
    import sys as system

    before = system.argv
    system.argv = ["chronotune", *arguments]
    try:
        with pytest.raises(SystemExit) as end:
            main()
    finally:
        system.argv = before
    printed = capsys.readouterr()
    code = end.value.code
    return (code if isinstance(code, int) else 0), printed.out, printed.err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]


def test_all_commands_are_there() -> None:
    """In the order of `--help`."""
    promised = "ls cp check run resume show report logs mirror attach status stop"
    promised += " evaluate compare export train forecast rm schema"
    assert promised.split() == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Of every command."""
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"chronotune {command}" in " ".join(out.split())
    assert "Example" in out


def test_help_imports_nothing_heavy() -> None:
    """So that it is there at once."""
    code = (
        "import sys, chronotune.cli as c; sys.argv = ['chronotune', '--help']\n"
        "try: c.main()\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'ray', 'optuna', 'mlflow', 'polars', 'chronos', 'sklearn', 'pydantic')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_importing_the_package_costs_nothing() -> None:
    """Public names are imported when they are used."""
    code = (
        "import sys, chronotune; print([m for m in ('torch', 'ray', 'polars', 'optuna') if m in sys.modules]);"
        "print(all(callable(getattr(chronotune, n)) for n in chronotune.__all__))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines() == ["[]", "True"]


def test_check_prints_the_facts(capsys: pytest.CaptureFixture[str]) -> None:
    """As a table and as JSON; the last value is a strong forecast when time is in order."""
    code, out, _ = run(capsys, "check", "quickstart")
    assert code == 0
    assert "test origins" in out
    code, out, _ = run(capsys, "check", "quickstart", "--json")
    assert code == 0
    assert json.loads(out)["test_origins"] == 73
    assert json.loads(out)["last_value_r2"] > 0.8


def test_check_of_steel_is_in_time_order(capsys: pytest.CaptureFixture[str], steel_csv: Path) -> None:
    """Shuffled rows would give an R2 of about -1."""
    code, out, _ = run(capsys, "check", "steel", "--set", f"data.path={steel_csv}", "--json")
    assert code == 0
    assert json.loads(out)["last_value_r2"] > 0.8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "quikstart"], "Did you mean quickstart"),
        (["run", "quickstart", "--set", "budget.trials=0"], "budget.trials"),
        (["check", "quickstart", "--set", "data.target=nothing"], "nothing"),
        (["run", "smoke", "--dir", "s3://bucket/one"], "is an address"),
        (["resume", "nowhere"], "recipe.yaml"),
        (["show", "nowhere"], "study.journal"),
        (["logs", "nowhere", "1"], "study.journal"),
        (["export", "nowhere", "--to", "models/x"], "winner"),
        (["train", "quickstart"], "still searches"),
        (["rm", "nowhere", "--yes"], "only a sweep"),
        (["evaluate", "tiny"], "evaluate tiny tuning"),
        (["compare", "tiny", "nowhere/x"], "not tuned by chronotune"),
        (["compare", "tiny"], "at least two"),
        (["forecast", "tiny", "nothing.csv", "--time", "t", "--target", "y", "--horizon", "4"], "must exist"),
        (["forecast", "tiny", "nothing.csv", "--time", "t"], "go together"),
        (["forecast", "tiny", "nothing.csv", "--out", "forecast.xlsx"], "--out: must end in"),
        (["cp", "tiny"], "models/tiny"),
        (["schema", "recip"], "recipe"),
        (["nothing"], "nothing"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_wrong_input_is_exit_2_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], here: Path, arguments: list[str], words: str
) -> None:
    """A message, no traceback, no file."""
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert words in err
    assert "Traceback" not in err + out
    assert list(here.iterdir()) == []


def test_several_faults_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """All at once, each on its line."""
    code, _, err = run(capsys, "run", "quickstart", "--set", "budget.trials=0", "--set", "horizon=-1")
    assert code == 2
    assert err.startswith("chronotune: 2 things to mend\n  --set: ")
    assert len(err.splitlines()) == 3


def test_cp_makes_a_file_one_s_own(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """The copy is found before the shipped one, and never overwritten."""
    assert run(capsys, "cp", "smoke", "tuning/mine.yaml")[0] == 2  # recipe and space have that name
    code, out, _ = run(capsys, "cp", "tuning/smoke", "tuning/mine.yaml")
    assert (code, out.strip()) == (0, "tuning/mine.yaml")
    code, out, _ = run(capsys, "ls", "--json")
    assert "mine" in [entry["name"] for entry in json.loads(out)["recipe"]]
    assert run(capsys, "cp", "tuning/smoke", "tuning/mine.yaml")[0] == 2
    assert run(capsys, "check", "mine")[0] == 0
    assert run(capsys, "cp", "models/tiny", "models/small.yaml")[0] == 0
    assert run(capsys, "check", "mine", "--set", "model=small")[0] == 0
    assert here.is_dir()


@pytest.mark.parametrize("kind", ["recipe", "space", "model", "cluster"])
def test_schema_is_json_schema(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """For editors."""
    code, out, _ = run(capsys, "schema", kind)
    assert code == 0
    assert json.loads(out)["type"] == "object"


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """What a cluster's nodes are compared by."""
    assert run(capsys, "--version") == (0, f"chronotune {__version__}\n", "")


def test_a_path_that_cannot_be_is_the_users(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """A file where a folder must be: no traceback."""
    (here / "file.csv").write_text("a,b\n")
    code, _, err = run(capsys, "cp", "quickstart", "file.csv/mine.yaml")
    assert code == 2
    assert "file.csv: must be a path that can be used" in err


def test_a_password_is_no_argument(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """Others see what a process was called with."""
    code, _, err = run(capsys, "mirror", "nowhere", "--to", "http://me:hunter2@host:5000")
    assert code == 2
    assert "--to: must hold no user and no password" in err
    assert "hunter2" not in err
