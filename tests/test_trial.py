"""One worker's trial: slices, checkpoints, scores; without Ray."""

from __future__ import annotations

import gc
import json
import re
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chronotune.again import LastWorker
from chronotune.config.load import load_model, load_recipe
from chronotune.config.space import Hyperparameters
from chronotune.data.panel import Panel, Series
from chronotune.data.prepare import load, trial_data
from chronotune.device import MEMORY
from chronotune.errors import ChronotuneError
from chronotune.export import write_winner
from chronotune.records import BUDGET, OBJECTIVE, Result, TrialRecord
from chronotune.search import result_of
from chronotune.stores import Folder, prune, prune_all_but
from chronotune.train import train_recipe
from chronotune.trial import Assignment, FineTuneTrial, TrialRun, Worker, _neighbours
from engine_parts import small_model
from sweep_parts import POINT, new_study, small_recipe
from sweep_parts import result as any_result


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small random model, saved as a preset's weights are."""
    folder = tmp_path_factory.mktemp("weights")
    small_model().save_pretrained(folder)
    return folder


@pytest.fixture
def worker(small_weights: Path, tmp_path: Path) -> Worker:
    """A worker of the small recipe, its sweep folder in `tmp_path`."""
    recipe = small_recipe(small_weights)
    return Worker(Assignment(recipe, trial_data(load(recipe), recipe), tmp_path))


def again(worker: Worker) -> Worker:
    """Another process's worker on the same sweep."""
    return Worker(worker.assignment)


def stable(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results without what the clock says."""
    return [{**r, "attributes": {k: v for k, v in r["attributes"].items() if k != "seconds"}} for r in results]


LORA = POINT.model_copy(update={"mode": "lora", "lora_rank": 2, "covariates": "all", "accumulation": 2})


@pytest.mark.parametrize("point", [POINT, LORA], ids=["full", "lora"])
def test_a_result_at_every_rung(worker: Worker, point: Hyperparameters) -> None:
    """Rungs are reached exactly though the effective batch does not divide them; the scores move."""
    results = list(TrialRun(worker, 7, point).results())
    assert [r[BUDGET] for r in results] == [3, 9, 27]
    assert len({r[OBJECTIVE] for r in results}) == 3
    assert results[0]["attributes"]["checkpoint"] == "0007/3"
    assert {"sql", "wql", "mase", "train_loss"} <= results[0]["metrics"].keys()


@pytest.mark.parametrize("point", [POINT, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_a_killed_trial_goes_on_to_the_last_digit(worker: Worker, point: Hyperparameters, killed_after: int) -> None:
    """Its last checkpoint's result is given once more, for the report may not have arrived."""
    whole = list(TrialRun(worker, 0, point).results())
    killed = TrialRun(worker, 1, point).results()
    before = [next(killed) for _ in range(killed_after)]
    resumed = list(TrialRun(again(worker), 1, point).results())
    assert resumed[0] == before[-1]
    together = stable([*before, *resumed[1:]])
    for r in together:
        r["attributes"]["checkpoint"] = r["attributes"]["checkpoint"].replace("0001/", "0000/")
    assert together == stable(whole)


def test_a_damaged_checkpoint_is_passed_over(worker: Worker) -> None:
    """The one before it is taken, and the damaged rung reached again."""
    run = TrialRun(worker, 0, POINT).results()
    first, second = next(run), next(run)
    weights = worker.assignment.directory / "checkpoints/0000/9/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    resumed = TrialRun(again(worker), 0, POINT).results()
    assert next(resumed) == first
    assert stable([next(resumed)]) == stable([second])


def test_a_half_written_checkpoint_is_no_checkpoint(worker: Worker) -> None:
    """It has not got its name yet."""
    run = TrialRun(worker, 0, POINT).results()
    first = next(run)
    folder = worker.assignment.directory / "checkpoints/0000"
    shutil.copytree(folder / "3", folder / ".9.partial")
    assert next(TrialRun(again(worker), 0, POINT).results()) == first


@pytest.mark.parametrize(("scores", "last"), [((0.9, 0.8, 0.7), {"9", "27"}), ((0.7, 0.8, 0.9), {"3", "9", "27"})])
def test_old_checkpoints_go_after_the_next_was_recorded(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, scores: tuple[float, ...], last: set[str]
) -> None:
    """Also a worse one is there when the next result is given, and gone at the one after; the best one stays."""
    given, folder = iter(scores), worker.assignment.directory / "checkpoints/0000"
    monkeypatch.setattr("chronotune.trial.validate", lambda *_: ({"sql": next(given)}, ""))
    there = [{path.name for path in folder.iterdir()} for _ in TrialRun(worker, 0, POINT).results()]
    assert there == [{"3"}, {"3", "9"}, last]


def test_the_best_trials_keep_their_best_checkpoint(tmp_path: Path) -> None:
    """All others free their disk; a running one keeps everything."""

    def trial(number: int, state: Any, *scores: float) -> TrialRecord:
        for windows in (3, 9, 27)[: len(scores)]:
            (tmp_path / f"checkpoints/{number:04d}/{windows}").mkdir(parents=True)
        results = tuple(any_result(w, s) for w, s in zip((3, 9, 27), scores, strict=False))
        return TrialRecord(number, state, POINT, results, None, None, None)

    trials = [
        trial(0, "complete", 0.5, 0.1, 0.2),
        trial(1, "complete", 0.9, 0.8, 0.7),
        trial(2, "pruned", 0.01),
        trial(3, "running", 0.6, 0.5),
        trial(4, "complete", 0.6, 0.5, 0.3),
    ]
    prune(Folder(tmp_path / "checkpoints"), trials, keep=2)
    left = {path.relative_to(tmp_path / "checkpoints").as_posix() for path in tmp_path.glob("checkpoints/*/*")}
    assert left == {"0000/9", "0003/3", "0003/9", "0004/27"}


def test_a_long_sweep_does_not_fill_the_disk(worker: Worker) -> None:
    """However many trials: the best ones' weights, and of the running trial the best, the latest and the new."""
    folder, keep, trials, most = worker.assignment.directory / "checkpoints", 2, list[TrialRecord](), 0

    def on_disk() -> tuple[int, int]:
        return len(list(folder.glob("*/*"))), sum(path.stat().st_size for path in folder.glob("*/*/*"))

    for number in range(6):
        point, results = (POINT, LORA)[number % 3 == 1], list[Result]()
        for r in TrialRun(worker, number, point.model_copy(update={"learning_rate": 10.0 ** -(2 + number)})).results():
            results.append(Result(**result_of(r)))
            trials[number:] = [TrialRecord(number, "running", point, tuple(results), None, None, None)]
            prune(worker.assignment.store, trials, keep)
            if number == 0 and len(results) == 1:
                one = on_disk()[1]  # a whole checkpoint of full fine-tuning
            folders, size = on_disk()
            most = max(most, folders)
            assert size <= 3 * one + keep * one / 2
            if number == 4:  # given up at its first rung
                break
        state: Any = "pruned" if number == 4 else "complete"
        trials[number] = replace(trials[number], state=state)
        prune(worker.assignment.store, trials, keep)
        assert on_disk()[0] <= keep
        assert on_disk()[1] <= keep * one / 2
    assert keep + 1 < most <= keep + 3
    assert not list(folder.glob("*/*/state.pt"))


@pytest.mark.parametrize("point", [POINT, LORA], ids=["full", "lora"])
def test_what_pruning_leaves_can_be_exported_but_not_resumed(worker: Worker, point: Hyperparameters) -> None:
    """The weights are the trial's own; the log says why a new run does not go on from them."""
    directory = worker.assignment.directory
    results = [Result(**result_of(r)) for r in TrialRun(worker, 0, point).results()]
    record = TrialRecord(0, "complete", point, tuple(results), None, None, None)
    assert record.best is not None
    seen = record.best.windows_seen
    TrialRun(again(worker), 0, point).export(seen, directory / "before")
    prune(Folder(directory / "checkpoints"), [record], keep=1)
    TrialRun(again(worker), 0, point).export(seen, directory / "after")
    weights = [(directory / name / "model.safetensors").read_bytes() for name in ("before", "after")]
    assert weights[0] == weights[1]
    with pytest.raises(ChronotuneError, match="weights only, since its trial has ended"):
        TrialRun(again(worker), 0, point)._tuner.restore(directory / f"checkpoints/0000/{seen}")


def test_scoring_zero_shot_covers_the_space(worker: Worker) -> None:
    """Every context length with every distinct covariate set, and how long that took."""
    scores = worker.zero_shot()
    settings = [(s["context_length"], s["covariates"]) for s in scores]
    assert settings == [(c, s) for c in (48, 96) for s in ("none", "known", "all")]
    assert all(np.isfinite(s["metrics"]["sql"]) and s["seconds"] > 0 for s in scores)


def test_nothing_of_the_test_segment_reaches_a_trial(worker: Worker, small_weights: Path, tmp_path: Path) -> None:
    """With every value of the test segment changed, results and weights are the same to the last bit."""
    recipe = worker.assignment.recipe
    dataset = load(recipe)
    assert worker.assignment.data.panel.end == dataset.split.test_start
    poisoned = replace(dataset, panel=_poisoned(dataset.panel, dataset.split.test_start))
    (tmp_path / "other").mkdir()
    other = Worker(Assignment(recipe, trial_data(poisoned, recipe), tmp_path / "other"))
    assert stable(list(TrialRun(other, 0, POINT).results())) == stable(list(TrialRun(worker, 0, POINT).results()))
    weights = "checkpoints/0000/27/weights.safetensors"
    assert (tmp_path / "other" / weights).read_bytes() == (tmp_path / weights).read_bytes()


def _poisoned(panel: Panel, begin: int) -> Panel:
    def poison(series: Series) -> Series:
        target, covariates = series.target.copy(), series.covariates.copy()
        target[begin - series.offset :] = 1e6
        covariates[:, begin - series.offset :] = -1e6
        return Series(series.id, series.offset, target, covariates)

    return replace(panel, series=tuple(map(poison, panel.series)))


class TestFineTuneTrial:
    """The Ray face of a trial, called as Tune calls it."""

    @pytest.fixture
    def trainable(self, worker: Worker) -> FineTuneTrial:
        """One that was set up for trial 0."""
        trainable = FineTuneTrial.__new__(FineTuneTrial)
        trainable.setup({"number": 0, "hyperparameters": POINT.model_dump()}, worker.assignment)
        return trainable

    def test_is_done_at_full_budget(self, trainable: FineTuneTrial) -> None:
        """And a reset worker begins its next trial with the same base model."""
        assert [trainable.step()["done"] for _ in range(3)] == [False, False, True]
        base = trainable._worker.base
        assert trainable.reset_config({"number": 1, "hyperparameters": LORA.model_dump()})
        assert trainable.step()["number"] == 1
        assert trainable._worker.base is base

    def test_gives_a_reason_instead_of_an_exception(self, trainable: FineTuneTrial, tmp_path: Path) -> None:
        """The reason for the study, the traceback for the log."""
        point = POINT.model_copy(update={"learning_rate": 1e30})
        trainable.reset_config({"number": 2, "hyperparameters": point.model_dump()})
        results = [trainable.step()]
        while not results[-1]["done"]:
            results.append(trainable.step())
        assert "finite" in results[-1]["failed"]
        assert "Traceback" in (tmp_path / "logs/2.log").read_text()

    def test_a_repeat_has_its_own_seed_and_log(self, trainable: FineTuneTrial, tmp_path: Path) -> None:
        """Beside those of the searched trial with the same number."""
        searched = trainable.step()
        trainable.reset_config({"number": 0, "hyperparameters": POINT.model_dump(), "seed": 9})
        repeated = trainable.step()
        assert repeated["number"] == searched["number"] == 0
        assert repeated[OBJECTIVE] != searched[OBJECTIVE]
        assert "3 windows, sql" in (tmp_path / "logs/finalists/0.log").read_text()

    def test_says_what_it_runs(
        self, trainable: FineTuneTrial, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Once a trial, into the actor's own log: its name on the dashboard stays the sweep's."""
        for config in (None, None, {"number": 4, "hyperparameters": POINT.model_dump(), "seed": 9}):
            assert config is None or trainable.reset_config(config)
            trainable.step()
        said = [line.removeprefix(f"{tmp_path.name}: ") for line in capsys.readouterr().err.splitlines()]
        assert said == ["trial 0 begins", "finalist 4, seed 9 begins"]

    def test_logs_its_progress(self, trainable: FineTuneTrial, tmp_path: Path) -> None:
        """`chronotune logs` reads it."""
        trainable.step()
        assert "3 windows, sql" in (tmp_path / "logs/0.log").read_text()


def test_results_are_what_the_study_takes(worker: Worker, tmp_path: Path) -> None:
    """JSON values all through."""
    (tmp_path / "study").mkdir()
    study = new_study(tmp_path / "study")
    from sweep_parts import ask

    number = ask(study)
    reported = next(TrialRun(worker, number, POINT).results())
    json.dumps(reported)
    study.record(number, Result(**result_of(reported)))
    assert study.trial(number).results[0].metrics == reported["metrics"]


@pytest.mark.parametrize("point", [POINT, LORA], ids=["full", "lora"])
def test_a_reused_worker_frees_the_last_trial(worker: Worker, point: Hyperparameters) -> None:
    """When the next trial is there, the model of one that was stopped in the middle is gone."""
    trainable = FineTuneTrial.__new__(FineTuneTrial)
    trainable.setup({"number": 0, "hyperparameters": point.model_dump()}, worker.assignment)
    base = trainable._worker.base
    before = {id(o) for o in gc.get_objects()}
    trainable.step()
    models = [weakref.ref(o) for o in gc.get_objects() if type(o) is type(base) and id(o) not in before]
    assert models
    trainable.reset_config({"number": 1, "hyperparameters": LORA.model_dump()})
    assert [model() for model in models] == [None]


def test_a_split_trial_is_repeated_from_its_export(
    small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained where one window fits, with dropout: its recipe says so, and repeats it where all four would fit."""
    whole = small_recipe(small_weights)
    recipe = whole.model_copy(update={"search_space": whole.search_space.collapse(POINT)})
    with monkeypatch.context() as short:
        short.setenv(MEMORY, "1")
        split = train_recipe(recipe, tmp_path / "split")
    exported = load_recipe(tmp_path / "split" / "recipe.yaml")
    assert exported.budget.splits == [(0, 1)]
    again, unsplit = train_recipe(exported, tmp_path / "again"), train_recipe(recipe, tmp_path / "unsplit")
    assert load_recipe(tmp_path / "again" / "recipe.yaml").budget.splits == [(0, 1)]
    assert load_recipe(tmp_path / "unsplit" / "recipe.yaml").budget.splits is None
    weights = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in ("split", "again", "unsplit")}
    assert (again.score, weights["again"]) == (split.score, weights["split"])
    assert (unsplit.score, weights["unsplit"]) != (split.score, weights["split"])


def test_a_winner_carries_its_split(worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the result that the study holds into the recipe of the sweep's winner."""
    monkeypatch.setenv(MEMORY, "1")
    *_, last = TrialRun(worker, 0, POINT).results()
    assert last["attributes"]["splits"] == [[0, 1]]
    record = TrialRecord(0, "complete", POINT, (Result(**result_of(last)),), None, None, None)
    write_winner(LastWorker(worker.assignment), worker.assignment, record, load(worker.assignment.recipe).panel)
    assert load_recipe(tmp_path / "winner" / "recipe.yaml").budget.splits == [(0, 1)]


def test_a_finalist_s_repeat_is_a_trial_of_its_own(worker: Worker, tmp_path: Path) -> None:
    """With another seed it trains another way, beside the trial of the same number, and goes on like one."""
    searched = list(TrialRun(worker, 0, POINT).results())
    interrupted = TrialRun(worker, 0, POINT, seed=5).results()
    before = [next(interrupted), next(interrupted)]
    repeated = [*before, *list(TrialRun(again(worker), 0, POINT, seed=5).results())[1:]]
    assert [r[BUDGET] for r in repeated] == [r[BUDGET] for r in searched]
    assert all(one[OBJECTIVE] != other[OBJECTIVE] for one, other in zip(searched, repeated, strict=True))
    assert repeated[0]["attributes"]["checkpoint"] == "finalists/0000/3"
    assert (tmp_path / "checkpoints/finalists/0000/27").is_dir()
    assert (tmp_path / "checkpoints/0000/27").is_dir()


def test_an_exported_repeat_is_trained_again_from_its_recipe(worker: Worker, tmp_path: Path) -> None:
    """Its seed, its trial, its score; the recipe repeats score and weights to the last digit, and nothing else."""
    results = [Result(**result_of(r)) for r in TrialRun(worker, 3, POINT, seed=5).results()]
    record = TrialRecord(3, "complete", POINT, tuple(results), None, None, None, of=7, seed=5)
    noted = write_winner(LastWorker(worker.assignment), worker.assignment, record, load(worker.assignment.recipe).panel)
    assert (noted["number"], noted["seed"]) == (7, 5)
    recipe, preset = load_recipe(tmp_path / "winner" / "recipe.yaml"), load_model(tmp_path / "winner")
    assert preset.provenance is not None
    assert (preset.provenance.trial, preset.provenance.seed) == (7, 5)
    assert (recipe.seed, recipe.finalists.top) == (5, 0)
    trained = train_recipe(recipe, tmp_path / "again")
    assert trained.score == noted["score"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("winner", "again")]
    assert weights[0] == weights[1]


def test_only_the_wanted_repeats_keep_their_checkpoints(worker: Worker, tmp_path: Path) -> None:
    """Those of searched trials of the same numbers are not touched."""
    results = tuple(Result(**result_of(r)) for r in TrialRun(worker, 0, POINT, seed=5).results())
    next(TrialRun(worker, 0, POINT).results())
    record = TrialRecord(0, "complete", POINT, results, None, None, None, of=7, seed=5)
    assert record.best is not None
    prune_all_but(Folder(tmp_path / "checkpoints"), [record], {0})
    left = [path.name for path in (tmp_path / "checkpoints/finalists/0000").iterdir()]
    assert left == [str(record.best.windows_seen)]
    prune_all_but(Folder(tmp_path / "checkpoints"), [record], set())
    assert not (tmp_path / "checkpoints/finalists/0000").exists()
    assert (tmp_path / "checkpoints/0000/3").is_dir()


def test_neighbours_share_the_machine(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the cores allow that may be used, or the profile; a worker that is alone has all of it."""
    monkeypatch.setattr("chronotune.trial.usable_cpus", lambda: 8)

    def neighbours(**profile: int) -> int:
        changed = worker.assignment.recipe.cluster.model_copy(update=profile)
        return _neighbours(worker.assignment.recipe.model_copy(update={"cluster": changed}))

    assert [neighbours(), neighbours(cpus_per_trial=4), neighbours(max_concurrent=3)] == [7, 1, 2]
    assert neighbours(cpus_per_trial=16) == 0
    assert worker.share == 1
    assert Worker(worker.assignment, neighbours=3).share == 0.25


def test_a_fraction_of_a_gpu_is_the_share(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of memory too; a whole GPU, or several, are all of one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    shares = []
    for gpus in (None, 0.25, 1, 2):
        cluster = worker.assignment.recipe.cluster.model_copy(update={"gpus_per_trial": gpus})
        recipe = worker.assignment.recipe.model_copy(update={"cluster": cluster})
        shares.append(Worker(replace(worker.assignment, recipe=recipe), neighbours=3).share)
    assert shares == [1, 0.25, 1, 1]


def test_the_log_tells_how_busy_it_was(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    """In percent of the trial's threads."""
    with caplog.at_level("INFO", logger="chronotune.trial"):
        next(TrialRun(worker, 0, POINT).results())
    assert re.search(r"3 windows, sql \d+\.\d+; cpu busy: \d+%", caplog.text)
