"""The whole path once, as a user goes it: run, look, export, train again, forecast, extend, remove.

One sweep of `tuning/smoke.yaml` on Ray with the embedded model serves all tests of this module.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from chronotune.config.load import load_model, load_recipe
from chronotune.config.space import Fixed
from chronotune.data.prepare import load
from chronotune.data.windows import actuals, windows_at
from chronotune.study import read
from engine_parts import by_the_library
from sweep_parts import looked_at

ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}


def chronotune(*arguments: str, cwd: Path, code: int = 0) -> str:
    """Run a command as a process of its own; its standard output."""
    command = [sys.executable, "-m", "chronotune", *arguments]
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout if code == 0 else done.stdout + done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's working directory."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def sweep(place: Path) -> Path:
    """A finished sweep, with its MLflow mirror; what it printed is in `printed.txt`."""
    text = chronotune("run", "smoke", "--dir", "sweeps/one", "--set", "tracking.enabled=true", cwd=place)
    (place / "printed.txt").write_text(text)
    return place / "sweeps/one"


@pytest.fixture(scope="module")
def exported(sweep: Path, place: Path) -> Path:
    """The winner, exported."""
    chronotune("export", "sweeps/one", "--to", "models/solar", "--force", cwd=place)
    return place / "models/solar"


def test_the_study_has_every_trial_ended(sweep: Path) -> None:
    """Four trials, a winner, zero-shot scores, an evaluation, one opening of the test segment."""
    reading = read(sweep)
    assert len(reading.trials) == 4
    assert {trial.state for trial in reading.trials} <= {"complete", "pruned"}
    assert reading.winner is not None
    assert reading.attributes["winner"]["number"] == reading.winner.number
    assert reading.attributes["evaluation"]["test_openings"] == 1
    assert reading.zero_shot is not None
    assert not (sweep / "checkpoints" / ".tune").exists()
    assert not (sweep / "lease.json").exists()


def test_the_progress_is_printed_in_plain_lines(sweep: Path, place: Path) -> None:
    """In a pipe: budgets in windows and steps, then leaderboard and evaluation."""
    assert sweep.exists()
    printed = (place / "printed.txt").read_text()
    for words in (
        "zero-shot: sql",
        "16/48 windows",
        "steps",
        "seasonal naive (24)",
        "best",
        "coverage80",
        "verdict: ",
        "export",
    ):
        assert words in printed


def test_zero_shot_and_best_are_scored_on_the_same_test_windows(sweep: Path) -> None:
    """The winner is fed its own covariates and context; every metric is there."""
    evaluation = json.loads((sweep / "evaluation.json").read_text())
    rows = {row["model"]: row for row in evaluation["rows"]}
    assert evaluation["windows"] == 73
    assert {"seasonal naive (24)", "zero-shot", "best"} <= rows.keys()
    winner = read(sweep).winner
    assert winner is not None
    assert winner.hyperparameters is not None
    assert rows["best"]["covariates"] == winner.hyperparameters.covariates
    for metric in ("sql", "wql", "mase", "mae", "rmse", "r2", "mape", "wape", "coverage50", "coverage80", "coverage90"):
        assert np.isfinite(rows["best"][metric])
    assert rows["seasonal naive (24)"]["mae"] == pytest.approx(34.84, abs=0.01)
    gain = 1 - rows["best"]["sql"] / rows["zero-shot"]["sql"]
    assert evaluation["verdict"]["gain"] == pytest.approx(gain, rel=1e-6)
    assert (evaluation["verdict"]["days"], evaluation["verdict"]["test_openings"]) == (73, 1)
    tables = json.loads((sweep / "segments.json").read_text())
    assert tables.keys() == {"step", "hour", "weekday"}
    assert {row["model"] for row in tables["step"]} == rows.keys()


def test_mlflow_shows_one_parent_and_a_child_per_trial(sweep: Path, place: Path) -> None:
    """In the default store, which `mlflow ui` opens without arguments, metrics by windows seen."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{place / 'mlflow.db'}")
    [experiment] = [e for e in client.search_experiments() if e.name == "chronotune"]
    runs = client.search_runs([experiment.experiment_id])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(runs) == 5
    assert len(children) == 4
    windows = {m.step for run in children for m in client.get_metric_history(run.info.run_id, "sql")}
    assert windows == {16, 48}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert sweep.exists()


def test_what_export_writes_is_read_again(exported: Path) -> None:
    """Preset and recipe load; the recipe holds one point, its budget and the schedule's length."""
    preset, recipe = load_model(exported / "preset.yaml"), load_recipe(exported / "recipe.yaml")
    assert preset.name == "solar"
    assert preset.serving is not None
    assert preset.serving.horizon == 24
    assert all(isinstance(p, Fixed) for p in recipe.search_space.parameters.values())
    assert recipe.budget.windows == 48
    assert recipe.budget.stop_at in (16, 48)


def test_a_second_export_does_not_overwrite(exported: Path, place: Path) -> None:
    """It gets a time in its name."""
    before = (exported / "preset.yaml").read_bytes()
    path = Path(chronotune("export", "sweeps/one", "--to", "models/solar", "--force", cwd=place).strip())
    assert path.name.startswith("solar-20")
    assert (place / path / "model.safetensors").exists()
    assert (exported / "preset.yaml").read_bytes() == before


def test_training_the_export_again_gives_the_same_score(exported: Path, sweep: Path, place: Path) -> None:
    """To the last digit, and the same weights."""
    printed = chronotune("train", "models/solar/recipe.yaml", "--to", "models/again", "--json", cwd=place)
    winner = read(sweep).winner
    assert winner is not None
    assert winner.best is not None
    assert json.loads(printed)["score"] == winner.best.objective
    weights = [(folder / "model.safetensors").read_bytes() for folder in (exported, place / "models/again")]
    assert weights[0] == weights[1]


def test_the_stock_library_forecasts_the_same(exported: Path) -> None:
    """Plain `Chronos2Pipeline.from_pretrained` on the exported folder, covariates included; its quantiles in order."""
    from chronos import Chronos2Pipeline

    from chronotune.forecaster import load_model as load_weights
    from chronotune.forecaster import predict_windows

    recipe, preset = load_recipe(exported / "recipe.yaml"), load_model(exported / "preset.yaml")
    assert preset.serving is not None
    serving, dataset = preset.serving, load(recipe)
    names = [*serving.past_only, *serving.known_future]
    panel = dataset.panel.select(names)
    windows = windows_at(panel, dataset.split.test_origins[:10], 24)
    ours = predict_windows(
        load_weights(preset), panel, windows, context_length=serving.context_length, horizon=24, covariates=names
    )
    stock = Chronos2Pipeline.from_pretrained(str(exported)).model
    theirs = by_the_library(stock, panel, windows, serving.context_length, 24, names)
    scale = np.abs(actuals(panel, windows, 24)).max()
    assert np.abs(theirs - ours).max() / scale < 1e-5


def test_evaluating_again_counts_the_opening(sweep: Path, place: Path) -> None:
    """The same numbers, and one opening more."""
    before = json.loads((sweep / "evaluation.json").read_text())
    after = json.loads(chronotune("evaluate", "sweeps/one", "--json", cwd=place))
    assert after["test_openings"] == before["test_openings"] + 1
    assert [row["model"] for row in after["rows"]] == [row["model"] for row in before["rows"]]
    assert after["rows"][-1]["sql"] == pytest.approx(before["rows"][-1]["sql"], rel=1e-5)


def test_an_exported_model_is_evaluated_on_its_own_recipe(exported: Path, sweep: Path, place: Path) -> None:
    """Fed as it was trained, so it scores what the sweep said."""
    rows = json.loads(chronotune("evaluate", "models/solar", "--json", cwd=place))["rows"]
    best = json.loads((sweep / "evaluation.json").read_text())["rows"][-1]
    assert rows[-1]["model"] == "solar"
    assert rows[-1]["sql"] == pytest.approx(best["sql"], rel=1e-5)
    assert exported.exists()


def test_an_exported_model_is_a_base_to_tune_again(exported: Path, place: Path) -> None:
    """`--set model=solar` finds it by its name."""
    printed = chronotune(
        "run", "smoke", "--dir", "sweeps/two", "--set", "model=solar", "--set", "budget.trials=1",
        "--set", "early_stopping.kind=none", cwd=place,
    )  # fmt: skip
    assert "1 trial of solar" in printed
    assert exported.exists()


def test_the_exported_model_forecasts(exported: Path) -> None:
    """From Python, a frame in and a frame out."""
    import chronotune

    preset = load_model(exported)
    assert preset.serving is not None
    recipe = load_recipe(exported / "recipe.yaml")
    from chronotune.data.sources import read as read_data

    frame = read_data(recipe.data)
    past = frame.head(2000)
    future = frame.slice(2000, 24).with_columns(pl.lit(None).cast(pl.Float64).alias("ghi"))
    forecast = chronotune.forecast(exported, pl.concat([past, future]))
    assert forecast.height == 24
    assert forecast["time"][0] == frame["time"][2000]
    assert (forecast["0.9"] >= forecast["0.1"]).all()


def test_a_finished_sweep_is_extended(sweep: Path, place: Path) -> None:
    """Two trials more; the first four stay as they were, and so does the recipe that was asked for."""
    before, recipe = read(sweep).trials, (sweep / "recipe.yaml").read_bytes()
    chronotune("resume", "sweeps/one", "--trials", "+2", cwd=place)
    reading = read(sweep)
    assert (sweep / "recipe.yaml").read_bytes() == recipe
    assert len(reading.trials) == 6
    assert reading.trials[:4] == before
    assert reading.attributes["evaluation"]["test_openings"] >= 2


def test_a_finished_sweep_is_left_alone(sweep: Path, place: Path) -> None:
    """Resumed without more trials it opens nothing and says what is there."""
    before = read(sweep).attributes["test_openings"]
    assert "chronotune export" in chronotune("resume", "sweeps/one", cwd=place)
    assert read(sweep).attributes["test_openings"] == before


def test_an_extension_survives_that_its_checkpoints_were_removed(sweep: Path, place: Path) -> None:
    """The old winner stands in `winner/`; if it is still the best it is not written again."""
    chronotune("rm", "sweeps/one", "--checkpoints", "--yes", cwd=place)
    chronotune("resume", "sweeps/one", "--trials", "1", cwd=place)
    assert read(sweep).attributes["ended"]


def test_a_sweep_on_other_data_is_not_resumed(sweep: Path, place: Path) -> None:
    """The recipe in the folder was edited: refused, with what differs."""
    text = (sweep / "recipe.yaml").read_text()
    edits = {"validation_origins: 5": "split.validation_origins was", "sampler: random": "search.sampler was gp"}
    try:
        for edit, told in edits.items():
            (sweep / "recipe.yaml").write_text(re.sub(rf"{edit.split()[0]} \w+", edit, text))
            assert told in chronotune("resume", "sweeps/one", cwd=place, code=2)
    finally:
        (sweep / "recipe.yaml").write_text(text)


def test_show_and_logs_read_the_sweep(sweep: Path, place: Path) -> None:
    """Leaderboard as JSON, zero-shot first; a trial's log."""
    shown = json.loads(chronotune("show", "sweeps/one", "--json", cwd=place))
    assert shown["leaderboard"][0]["state"] == "zero-shot"
    assert shown["state"] == "finished"
    assert "windows, sql" in chronotune("logs", "sweeps/one", "0", cwd=place)
    listed = json.loads(chronotune("ls", "--json", cwd=place))
    assert [s["state"] for s in listed["sweep"] if s["name"] == "one"] == ["finished"]
    assert sweep.exists()


@pytest.fixture
def interrupted(place: Path) -> Iterator[subprocess.Popen[str]]:
    """A sweep of one worker that runs, past its first result."""
    command = [sys.executable, "-m", "chronotune", "run", "smoke", "--dir", "sweeps/cut"]
    settings: list[Any] = ["cluster.max_concurrent=1", "budget.trials=3"]
    with subprocess.Popen(
        command + [part for s in settings for part in ("--set", s)],
        cwd=place, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("trial 0: 16/48"):
                break
        yield process
        process.kill()
    shutil.rmtree(place / "sweeps/cut")


def test_sigterm_ends_in_order(interrupted: subprocess.Popen[str], place: Path) -> None:
    """As a cluster ends a job: recorded, released, and with its own exit code."""
    interrupted.send_signal(signal.SIGTERM)
    output, _ = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130, output
    assert not (place / "sweeps/cut/lease.json").exists()
    assert len(read(place / "sweeps/cut").trials[0].results) >= 1


def test_ctrl_c_ends_in_order_and_resume_goes_on(interrupted: subprocess.Popen[str], place: Path) -> None:
    """Nothing finished is lost, nothing is left behind, and the rest is run."""
    time.sleep(0.3)
    interrupted.send_signal(signal.SIGINT)
    output, _ = interrupted.communicate(timeout=60)
    assert interrupted.returncode == 130, output
    assert "resume" in output
    folder = place / "sweeps/cut"
    assert not (folder / "lease.json").exists()
    before = read(folder).trials
    chronotune("resume", "sweeps/cut", cwd=place)
    after = read(folder).trials
    assert len(after) == 3
    assert all(trial.state != "running" for trial in after)
    assert after[0].results[: len(before[0].results)] == before[0].results


def test_a_killed_worker_s_trial_goes_on(place: Path) -> None:
    """From its last checkpoint, in another process; the death is in the trial's log, and no traceback on the screen."""
    settings = ["budget.trials=1", "budget.windows=1296", "cluster.max_concurrent=1"]
    command = [sys.executable, "-m", "chronotune", "run", "smoke", "--dir", "sweeps/worker"]
    log = place / "sweeps/worker/logs/0.log"
    with subprocess.Popen(
        command + [part for s in settings for part in ("--set", s)],
        cwd=place, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("trial 0: 16/1296"):
                assert looked_at(place / "sweeps/worker") == ("running", f"driven by process {process.pid} on")
            if line.startswith("trial 0: 432/1296"):
                [worker] = re.findall(r"runs in process (\d+)", log.read_text())
                os.kill(int(worker), signal.SIGKILL)
    assert process.returncode == 0, "".join(lines)
    assert "Traceback" not in "".join(lines)
    [trial] = read(place / "sweeps/worker").trials
    assert [r.windows_seen for r in trial.results] == [16, 48, 144, 432, 1296]
    assert "its worker died" in log.read_text()
    assert "goes on from 432 windows" in log.read_text()


def test_a_closed_pipe_does_not_end_a_sweep(place: Path) -> None:
    """`chronotune run ... | head -1`: only the display is lost."""
    command = f"{sys.executable} -m chronotune run smoke --dir sweeps/head --set budget.trials=1 | head -1"
    subprocess.run(command, shell=True, cwd=place, env=ENVIRONMENT, capture_output=True, timeout=200, check=False)
    assert all(read(place / "sweeps/head").attributes[key] for key in ("ended", "evaluation"))


def test_a_killed_driver_is_resumed_identically(sweep: Path, place: Path) -> None:
    """SIGKILL with one worker: the resumed sweep equals an unbroken one, trial by trial."""
    settings = ("--set", "cluster.max_concurrent=1")
    chronotune("run", "smoke", "--dir", "sweeps/whole", *settings, cwd=place)
    command = [sys.executable, "-m", "chronotune", "run", "smoke", "--dir", "sweeps/killed", *settings]
    with subprocess.Popen(command, cwd=place, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("trial 1: 16/48"):
                process.kill()
    assert process.returncode == -signal.SIGKILL, "it came to its end without that line"
    recipe = (place / "sweeps/killed/recipe.yaml").read_bytes()
    chronotune("resume", "sweeps/killed", cwd=place)
    assert (place / "sweeps/killed/recipe.yaml").read_bytes() == recipe
    whole, killed = (
        [(t.number, t.state, t.hyperparameters, [(r.windows_seen, r.metrics) for r in t.results]) for t in trials]
        for trials in (read(place / "sweeps/whole").trials, read(place / "sweeps/killed").trials)
    )
    assert killed == whole
    assert sweep.exists()


def test_rm_frees_checkpoints_then_the_sweep(place: Path) -> None:
    """Only of sweeps; a model folder is refused."""
    chronotune("rm", "sweeps/whole", "--checkpoints", "--yes", cwd=place)
    assert not (place / "sweeps/whole/checkpoints").exists()
    assert len(read(place / "sweeps/whole").trials) == 4
    chronotune("rm", "sweeps/whole", "--yes", cwd=place)
    assert not (place / "sweeps/whole").exists()
    assert "only a sweep is removed" in chronotune("rm", "models/solar", "--yes", cwd=place, code=2)


def test_a_model_that_cannot_be_had_is_one_line(place: Path) -> None:
    """No network and no cache: exit 1, no traceback, and no folder."""
    message = chronotune("run", "smoke", "--set", "model=chronos-2", "--dir", "sweeps/none", cwd=place, code=1)
    assert not (place / "sweeps/none").exists()
    assert "Traceback" not in message
    assert "amazon/chronos-2" in message
