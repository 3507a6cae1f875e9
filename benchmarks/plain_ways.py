"""A search as it is written by hand: `Chronos2Pipeline.fit` inside plain Ray Tune, or inside plain Optuna.

Both get the configurations, rungs, training and validation series and threads of our sweep, and judge trials by the
same metric on the same origins. Everything else is what the libraries' documentation shows: a function that loads the
model and calls `fit`, the stock searcher, scheduler and MLflow callback; or an objective with a pruner.
"""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from transformers.trainer_callback import TrainerCallback

from chronotune import metrics
from chronotune.config.recipe import Recipe
from chronotune.config.space import Choice, Fixed, FloatRange, Hyperparameters, IntRange, SearchSpace
from chronotune.data.panel import Panel, TrialData, Window
from chronotune.data.windows import actuals
from chronotune.metrics import QUANTILES

OBJECTIVE, WINDOWS, BUSY, FIRST_STEP, REACHED = "objective", "windows", "busy", "first_step", "reached"


@dataclass(frozen=True)
class Task:
    """A search whose configurations are given."""

    recipe: Recipe
    data: TrialData
    points: tuple[Hyperparameters, ...]
    weights: str
    """Folder or id of the model to fine-tune."""
    threads: int
    """Of torch, in each trial."""
    slots: int
    """Trials side by side."""


@dataclass(frozen=True)
class Reached:
    """A validation objective that was lower than those before it in its trial."""

    at: float
    """Unix time."""
    score: float
    weights: str
    """The folder of its weights."""


@dataclass(frozen=True)
class Trial:
    """What became of one configuration."""

    point: Hyperparameters
    reached: tuple[Reached, ...]
    """In the order of time."""
    busy: float
    """Seconds inside `fit`'s training loop, validation included."""
    gap: float
    """Seconds from the call of the trial's function to its first optimizer step."""


Span: TypeAlias = tuple[float, float]
"""Unix times of a search's beginning and end."""


def plain_ray(task: Task, folder: Path) -> tuple[list[Trial], Span]:
    """Ray Tune with OptunaSearch, ASHA and the MLflow callback; also when `Tuner.fit` began and ended."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    recipe, points = task.recipe, [as_config(point, task.recipe.search_space) for point in task.points]
    asha = ASHAScheduler(
        time_attr=WINDOWS,
        metric=OBJECTIVE,
        mode="min",
        max_t=recipe.rungs[-1],
        grace_period=recipe.rungs[0],
        reduction_factor=recipe.early_stopping.reduction,
    )
    search = OptunaSearch(distributions(recipe.search_space), points_to_evaluate=points, metric=OBJECTIVE, mode="min")
    mirror = MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder}/mlflow.db", experiment_name=recipe.name)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_ray_trial, task=task, folder=folder), {"cpu": task.threads}),
        tune_config=tune.TuneConfig(
            search_alg=search, scheduler=asha, num_samples=len(points), max_concurrent_trials=task.slots
        ),
        run_config=tune.RunConfig(name="plain", storage_path=str(folder), callbacks=[mirror], verbose=0),
    )
    ray.init(num_cpus=task.threads * task.slots, include_dashboard=False, log_to_driver=False)
    began = time.time()
    grid = tuner.fit()
    ended = time.time()
    ray.shutdown()
    return [_ray_result(task, result) for result in grid], (began, ended)


def plain_optuna(task: Task, folder: Path) -> tuple[list[Trial], Span]:
    """Optuna in one process, one trial after the other; also when `optimize` began and ended."""
    import optuna
    import torch

    torch.set_num_threads(task.threads * task.slots)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recipe = task.recipe
    study = optuna.create_study(
        storage=f"sqlite:///{folder}/optuna.db",
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=recipe.rungs[0], reduction_factor=recipe.early_stopping.reduction
        ),
    )
    for point in task.points:
        study.enqueue_trial(as_config(point, recipe.search_space))
    trials: list[Trial] = []

    def objective(trial: optuna.Trial) -> float:
        point, told = suggested(trial, recipe.search_space), _Told()

        def report(windows: int, score: float) -> bool:
            trial.report(score, windows)
            return bool(trial.should_prune())

        fit(task, point, folder / f"trial-{trial.number}", told, report)
        trials.append(told.trial(point))
        if told.stopped:
            raise optuna.TrialPruned
        return told.score

    began = time.time()
    study.optimize(objective, n_trials=len(task.points))
    return trials, (began, time.time())


def distributions(space: SearchSpace) -> dict[str, Any]:
    """What varies in a space, as Optuna's distributions; conditions are not known to the plain ways."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for name, parameter in space.parameters.items():
        match parameter:
            case FloatRange():
                found[name] = FloatDistribution(parameter.low, parameter.high, log=parameter.log)
            case IntRange():
                found[name] = IntDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
            case Choice():
                found[name] = CategoricalDistribution(parameter.values)
    return found


def suggested(trial: Any, space: SearchSpace) -> Hyperparameters:
    """The same by an Optuna trial; what is fixed comes from the space."""
    suggest = {"FloatDistribution": trial.suggest_float, "IntDistribution": trial.suggest_int}
    chosen: dict[str, Any] = {}
    for name, kind in distributions(space).items():
        if (numeric := suggest.get(type(kind).__name__)) is not None:
            chosen[name] = numeric(name, kind.low, kind.high, step=kind.step, log=kind.log)
        else:
            chosen[name] = trial.suggest_categorical(name, kind.choices)
    return as_point({**fixed(space), **chosen})


def fixed(space: SearchSpace) -> dict[str, Any]:
    """What does not vary in a space."""
    return {name: one.value for name, one in space.parameters.items() if isinstance(one, Fixed)}


def as_config(point: Hyperparameters, space: SearchSpace) -> dict[str, Any]:
    """What varies of a point, as the plain ways hold it: the rank has a value in full fine-tuning too."""
    named = {**point.model_dump(), "lora_rank": point.lora_rank or 8}
    return {name: named[name] for name in distributions(space)}


def as_point(config: dict[str, Any]) -> Hyperparameters:
    """The other way."""
    return Hyperparameters(**{**config, "lora_rank": config.get("lora_rank", 8) if config["mode"] == "lora" else None})


class _Told:
    """What a trial has told of itself so far."""

    def __init__(self) -> None:
        self.called = time.perf_counter()
        self.reached: list[Reached] = []
        self.busy, self.gap, self.stopped = 0.0, 0.0, False

    @property
    def score(self) -> float:
        return self.reached[-1].score if self.reached else math.inf

    def trial(self, point: Hyperparameters) -> Trial:
        return Trial(point, tuple(self.reached), self.busy, self.gap)


def _ray_trial(config: dict[str, Any], task: Task | None = None, folder: Path | None = None) -> None:
    import torch
    from ray import tune

    assert task is not None
    torch.set_num_threads(task.threads)
    told = _Told()

    def report(windows: int, score: float) -> bool:
        values = {OBJECTIVE: score, WINDOWS: windows, BUSY: told.busy, FIRST_STEP: told.gap}
        tune.report({**values, REACHED: [asdict(one) for one in told.reached]})
        return False  # Ray ends a stopped trial itself

    fit(task, as_point({**fixed(task.recipe.search_space), **config}), Path(tempfile.mkdtemp(dir=folder)), told, report)


def _ray_result(task: Task, result: Any) -> Trial:
    told = result.metrics or {}
    return Trial(
        as_point({**fixed(task.recipe.search_space), **(result.config or {})}),
        tuple(Reached(**one) for one in told.get(REACHED, ())),
        told.get(BUSY, 0.0),
        told.get(FIRST_STEP, 0.0),
    )


def fit(task: Task, point: Hyperparameters, folder: Path, told: _Told, report: Callable[[int, float], bool]) -> None:
    """One trial: load the model, `fit` it, score it at the rungs; `report` says whether to stop."""
    from chronos import Chronos2Pipeline

    recipe, data = task.recipe, task.data
    panel = data.panel.select(recipe.data.sets[point.covariates])
    mode: dict[str, Any] = {"finetune_mode": point.mode}
    if point.mode == "lora":
        targets = [f"self_attention.{name}" for name in "qvko"] + ["output_patch_embedding.output_layer"]
        rank = point.lora_rank or 8
        mode["lora_config"] = {"r": rank, "lora_alpha": 2 * rank, "target_modules": targets}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Chronos2Pipeline.from_pretrained(task.weights).fit(
            [
                as_dictionary(panel, Window(i, len(series)))
                for i, series in enumerate(panel.until(data.train_end).series)
            ],
            prediction_length=recipe.horizon,
            context_length=point.context_length,
            learning_rate=point.learning_rate,
            num_steps=-(-recipe.budget.windows // point.effective_batch),
            batch_size=point.windows * (1 + len(panel.covariates)),
            gradient_accumulation_steps=point.accumulation,
            output_dir=folder,
            callbacks=[_AtRungs(task, point, panel, folder, told, report)],
            remove_printer_callback=True,
            disable_tqdm=True,
            logging_strategy="no",
            **mode,
        )


def as_dictionary(panel: Panel, window: Window, start: int = 0, horizon: int | None = None) -> dict[str, Any]:
    """The steps from `start` to a window's origin as users of the library write them; None: no future, to train on."""
    series = panel.series[window.series]
    past = slice(start, window.origin)
    rows = dict(zip(panel.covariates, series.covariates, strict=True))
    future = {
        name: rows[name][window.origin : window.origin + horizon] if horizon else None for name in panel.known_future
    }
    return {
        "target": series.target[past],
        "past_covariates": {name: values[past] for name, values in rows.items()},
        "future_covariates": future,
    }


class _AtRungs(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
    """Scores the model on the validation origins whenever a rung is reached, and keeps the best weights."""

    def __init__(
        self,
        task: Task,
        point: Hyperparameters,
        panel: Panel,
        folder: Path,
        told: _Told,
        report: Callable[[int, float], bool],
    ) -> None:
        self._task, self._point, self._panel, self._told, self._report = task, point, panel, told, report
        self._folder, self._left = folder, list(task.recipe.rungs)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """The trial's first step is next."""
        self._began = time.perf_counter()
        self._told.gap = self._began - self._told.called

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """At a rung: score, keep, report."""
        windows = state.global_step * self._point.effective_batch
        self._told.busy = time.perf_counter() - self._began
        if not self._left or windows < self._left[0]:
            return
        rung = self._left.pop(0)
        model.eval()
        score = self._score(model)
        if score < self._told.score:
            weights = self._folder / f"best-{rung}"
            model.save_pretrained(weights)
            self._told.reached.append(Reached(time.time(), score, str(weights)))
        model.train()
        self._told.busy = time.perf_counter() - self._began
        if self._report(rung, score):
            self._told.stopped = control.should_training_stop = True

    def _score(self, model: Any) -> float:
        task, data = self._task, self._task.data
        quantiles = forecasts(model, self._panel, data.validation, self._point.context_length, data.horizon)
        scales = data.scales[[window.series for window in data.validation]]
        return metrics.score(quantiles, actuals(data.panel, data.validation, data.horizon), scales)[
            task.recipe.objective
        ]


def forecasts(model: Any, panel: Panel, windows: Sequence[Window], context: int, horizon: int) -> Any:
    """Quantiles of windows by the library on a list of dictionaries, as `predicted` gives them."""
    inputs = [as_dictionary(panel, window, max(0, window.origin - context), horizon) for window in windows]
    return predicted(model, inputs, context, horizon)


def predicted(model: Any, inputs: list[dict[str, Any]], context: int, horizon: int) -> Any:
    """What `Chronos2Pipeline.predict` gives, in order as ours are, since they may cross: (windows, 9, horizon)."""
    from chronos import Chronos2Pipeline

    pipeline = Chronos2Pipeline(model)
    quantiles = pipeline.predict(inputs, prediction_length=horizon, context_length=context)
    shown = [pipeline.quantiles.index(level) for level in QUANTILES]
    return np.stack([np.sort(forecast[0].numpy(), axis=0)[shown] for forecast in quantiles])
