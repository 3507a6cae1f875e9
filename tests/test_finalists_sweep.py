"""One real sweep whose driver is killed while it trains its finalists; it is resumed, and its winner exported."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chronotune.checkpoint import sha256
from chronotune.config.load import load_model, load_recipe
from chronotune.finalists import champion, standings
from chronotune.study import Reading, TrialRecord, read
from test_sweep import ENVIRONMENT, chronotune

SETTINGS = (
    "finalists.top=2",
    "finalists.seeds=3",
    "budget.trials=2",
    "early_stopping.kind=none",
    "cluster.max_concurrent=1",
    "tracking.enabled=true",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's working directory."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def killed(place: Path) -> Reading:
    """What SIGKILL left of the second finalist's first training, or a later one, after its first result."""
    options = [part for setting in SETTINGS for part in ("--set", setting)]
    command = ["run", "smoke", "--dir", "sweeps/one", *options]
    for _ in range(3):
        _kill_in_a_training(command, place)
        reading = read(place / "sweeps/one")
        if _cut(reading):
            return reading
        command = ["resume", "sweeps/one"]  # it was late: that training had ended, or the next had begun
    pytest.fail("three kills came between two trainings")


def _kill_in_a_training(command: list[str], place: Path) -> None:
    """Run a command to the first result of a training after the first."""
    with subprocess.Popen(
        [sys.executable, "-m", "chronotune", *command],
        cwd=place, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("finalist") and "16/48" in line and "[0/6" not in line:
                process.kill()
    assert process.returncode == -signal.SIGKILL, "".join(lines)


def _cut(reading: Reading) -> TrialRecord | None:
    """The training that runs and has a result."""
    return next((repeat for repeat in reading.finalists if repeat.state == "running" and repeat.results), None)


@pytest.fixture(scope="module")
def sweep(killed: Reading, place: Path) -> Path:
    """The same, resumed to its end; what that printed is in `printed.txt`."""
    assert killed.finalists
    (place / "printed.txt").write_text(chronotune("resume", "sweeps/one", cwd=place))
    return place / "sweeps/one"


def facts(repeat: TrialRecord) -> tuple[object, ...]:
    """All of a training but its times."""
    return repeat.number, repeat.of, repeat.seed, repeat.state, [(r.windows_seen, r.metrics) for r in repeat.results]


def test_every_repeat_is_there_once_after_a_kill(killed: Reading, sweep: Path) -> None:
    """What had ended stays as it was, what ran went on, and the search was not touched."""
    reading = read(sweep)
    ended = [facts(repeat) for repeat in killed.finalists if repeat.state == "complete"]
    assert 1 <= len(ended) < 6
    assert [facts(repeat) for repeat in reading.finalists][: len(ended)] == ended
    chosen = reading.attributes["finalists"]
    assert chosen == {"trials": chosen["trials"], "seeds": [1, 2, 3]}
    pairs = [(repeat.of, repeat.seed) for repeat in reading.finalists]
    assert pairs == [(trial, seed) for seed in (1, 2, 3) for trial in chosen["trials"]]
    assert {repeat.state for repeat in reading.finalists} == {"complete"}
    assert {trial.windows_seen for trial in reading.finalists} == {48}
    assert reading.trials == killed.trials
    assert not (sweep / "lease.json").exists()


def test_the_running_repeat_went_on_from_its_checkpoint(killed: Reading, sweep: Path, place: Path) -> None:
    """It was not begun again; its log says so, and `chronotune logs` finds it by its seed."""
    cut = _cut(killed)
    assert cut is not None
    log = chronotune("logs", "sweeps/one", str(cut.of), "--seed", str(cut.seed), cwd=place)
    assert re.search("goes on from (16|48) windows", log)  # its last checkpoint may be one that nobody was told of
    assert sweep.exists()


def test_seeds_matter_and_are_paired(sweep: Path) -> None:
    """No repeat equals the searched trial or another seed of it."""
    for standing in standings(read(sweep)):
        scores = [repeat.best.objective for repeat in (standing.trial, *standing.repeats) if repeat.best]
        assert len(set(scores)) == 4


def test_the_median_of_the_best_mean_is_the_winner(sweep: Path) -> None:
    """In the study, in `winner/`, and in what is evaluated; no other finalist keeps its checkpoint."""
    reading = read(sweep)
    best = champion(reading)
    assert best is not None
    assert best.median is not None
    assert best.median.best is not None
    winner = reading.attributes["winner"]
    assert (winner["number"], winner["seed"], winner["mean"]) == (best.trial.number, best.median.seed, best.mean)
    assert winner["score"] == best.median.best.objective == sorted(r.best.objective for r in best.repeats if r.best)[1]
    assert all(one.mean is not None and one.mean >= winner["mean"] for one in standings(reading))
    left = [path.relative_to(sweep).as_posix() for path in sweep.glob("checkpoints/finalists/*/*")]
    assert left == [f"checkpoints/{best.median.best.attributes['checkpoint']}"]
    assert reading.attributes["evaluation"]["test_openings"] == 1


def test_training_the_export_again_gives_the_same_score(sweep: Path, place: Path) -> None:
    """To the last digit, and the same weights: the recipe holds the median's seed."""
    chronotune("export", "sweeps/one", "--to", "models/solar", "--force", cwd=place)
    recipe, preset = load_recipe(place / "models/solar/recipe.yaml"), load_model(place / "models/solar")
    winner = read(sweep).attributes["winner"]
    assert preset.provenance is not None
    assert (recipe.seed, preset.provenance.seed, preset.provenance.trial) == (
        winner["seed"],
        winner["seed"],
        winner["number"],
    )
    printed = chronotune("train", "models/solar/recipe.yaml", "--to", "models/again", "--json", cwd=place)
    assert json.loads(printed)["score"] == winner["score"]
    assert sha256(place / "models/again/model.safetensors") == winner["tuned"]


def test_they_are_shown_apart(sweep: Path, place: Path) -> None:
    """In the progress, in `show`, in its JSON; never in the leaderboard."""
    printed = (place / "printed.txt").read_text()
    for words in ("[6/6 trainings done]", "finalists: validation sql", "seed 3", "wins with a mean sql of"):
        assert words in printed
    shown = json.loads(chronotune("show", "sweeps/one", "--json", cwd=place))
    assert len(shown["leaderboard"]) == 3
    assert [len(row["repeats"]) for row in shown["finalists"]] == [3, 3]
    assert sweep.exists()


def test_mlflow_has_them_as_children(sweep: Path, place: Path) -> None:
    """Two trials, six repeats, and their parent."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{place / 'mlflow.db'}")
    [experiment] = [e for e in client.search_experiments() if e.name == "chronotune"]
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 9
    assert sum("chronotune.finalist" in run.data.tags for run in runs) == 6
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert sweep.exists()


def test_an_extended_sweep_keeps_its_finalists(sweep: Path, place: Path) -> None:
    """Those that were trained are not trained again; a newcomer joins only if it is among the best."""
    before = read(sweep)
    chronotune("resume", "sweeps/one", "--trials", "1", cwd=place)
    reading = read(sweep)
    assert len(reading.trials) == 3
    assert reading.finalists[:6] == before.finalists
    joined = [trial for trial in reading.attributes["finalists"]["trials"] if trial == 2]
    assert len(reading.finalists) == 6 + 3 * len(joined)
    best = champion(reading)
    assert best is not None
    assert reading.attributes["winner"]["number"] == best.trial.number
