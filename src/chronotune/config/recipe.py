"""The recipe of a sweep: everything that decides its outcome, in one frozen object."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from chronotune.config.base import Breach, Declaration, Name, refuse
from chronotune.config.cluster import LOCAL, ClusterProfile, as_meant
from chronotune.config.model import ModelPreset
from chronotune.config.search import Point, SearchConfig, no_grid, points_outside
from chronotune.config.space import Choice, Fixed, SearchSpace, extremes
from chronotune.config.storage import bad_storage, bad_tracking

Objective: TypeAlias = Literal["sql", "wql", "mase", "mae", "rmse"]

BUILT_IN_SETS = ("none", "known", "all")
BUILT_IN_SEGMENTS = ("step", "hour", "weekday", "series")
"""Tables that every evaluation has, whatever columns `evaluation.segments` names."""


class DataConfig(Declaration):
    """The series to forecast."""

    source: Literal["steel", "solar", "file"] = Field(
        description="steel: UCI 851, downloaded once; solar: embedded; file: your own CSV or Parquet at path."
    )
    path: str | None = Field(None, description="The file; for steel, a copy that is already there.")
    time: str = Field(description="Column of timestamps (the start of each interval).")
    target: str = Field(description="Column to forecast.")
    id: str | None = Field(None, description="Column that tells the series of a panel apart.")
    past_only: list[str] = Field(default_factory=list, description="Covariates whose future is unknown.")
    known_future: list[str] = Field(default_factory=list, description="Covariates known in advance, e.g. calendar.")
    trust_known_future: list[str] = Field(
        default_factory=list,
        description="Those of known_future that were known although they explain the target as if measured with it.",
    )
    covariate_sets: dict[Name, list[str]] = Field(
        default_factory=dict, description="Named subsets for the search, beside the built-in none, known and all."
    )
    fill_gaps: bool = Field(False, description="Insert rows of missing values where time steps are missing.")
    seasons: list[PositiveInt] = Field(
        min_length=1, description="Seasonal periods in steps, the main one first: it scales MASE and SQL."
    )

    @model_validator(mode="after")
    def _columns_have_one_role(self) -> Self:
        refuse([*_path_breaches(self), *_role_breaches(self), *_set_breaches(self), *_trust_breaches(self)])
        return self

    @property
    def sets(self) -> dict[str, tuple[str, ...]]:
        """All covariate sets by name, columns in model order: past-only first, then known-future."""
        order = [*self.past_only, *self.known_future]
        named = {name: tuple(c for c in order if c in columns) for name, columns in self.covariate_sets.items()}
        return {"none": (), "known": tuple(self.known_future), "all": tuple(order), **named}


class SplitConfig(Declaration):
    """How time is cut: training first, then validation, then test."""

    validation: PositiveFloat = Field(0.15, lt=1, description="Share of the time range.")
    test: PositiveFloat = Field(0.2, lt=1, description="Share of the time range, at its end.")
    validation_origins: PositiveInt = Field(24, description="Forecast origins, spread evenly over the segment.")
    stride: PositiveInt | None = Field(None, description="Steps between possible origins; null: the horizon.")

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Self:
        if (held_out := self.validation + self.test) >= 1:
            rule = f"and test must leave time to train on, but together they are {held_out:g} of it"
            refuse([Breach(("validation",), rule, "Make them add up to less than 1; 0.15 and 0.2 are usual")])
        return self


class Budget(Declaration):
    """What the sweep may spend, in training windows seen."""

    trials: PositiveInt = Field(description="Configurations to try.")
    windows: PositiveInt = Field(description="Full budget of a trial; the learning rate reaches 0 here.")
    stop_at: PositiveInt | None = Field(
        None, description="End training here although the schedule is longer; written by export."
    )
    splits: list[tuple[NonNegativeInt, PositiveInt]] | None = Field(
        None,
        description="At most this many windows are computed at once, each pair: from which optimizer step, how many; "
        "written by export where memory did not hold search_space.windows at once; only where nothing is searched.",
    )
    threads: list[tuple[NonNegativeInt, PositiveInt]] | None = Field(
        None,
        description="torch's threads in training, each pair: from which optimizer step on, how many; written by export "
        "where the last trials had those of idle slots; only where nothing is searched.",
    )
    minutes: PositiveFloat | None = Field(None, description="Wall time after which no new trial starts, but finalists.")
    patience: PositiveInt | None = Field(
        None, description="No new trial starts when the best has not improved for so many finished trials."
    )
    stuck_minutes: PositiveFloat | None = Field(
        240.0,
        description="A worker without a result for so long is taken for stuck: its process ends, and its trial goes on "
        "from its last checkpoint in another, twice at most. null: it is waited for.",
    )
    keep_checkpoints: PositiveInt = Field(
        1,
        description="Finished trials whose best checkpoint stays on disk; until there is a winner at least 4, which "
        "may be averaged with it, unless evaluation.blends is false.",
    )

    @model_validator(mode="after")
    def _stop_inside(self) -> Self:
        if self.stop_at is not None and self.stop_at > self.windows:
            rule = f"must not exceed budget.windows, but {self.stop_at} > {self.windows}"
            refuse([Breach(("stop_at",), rule, "Lower it, or remove it to train to the end")])
        return self


class EarlyStopping(Declaration):
    """ASHA on windows seen: at each rung only the best share goes on."""

    kind: Literal["asha", "none"] = Field("asha", description="none: every trial gets its full budget.")
    grace: PositiveInt | None = Field(
        None,
        description="Windows of the first rung: no trial is judged before. "
        "null: budget.windows / (2 x reduction), so that the next rung is at half of the budget.",
    )
    reduction: int = Field(3, ge=2, description="One in this many goes on; each rung is this many times the last.")


class Finalists(Declaration):
    """The best trials are trained again with other seeds before one of them wins, so that no luck is exported."""

    top: NonNegativeInt = Field(
        3, description="Trials to train again at full budget; 0: none, and the best trial wins as it is."
    )
    seeds: PositiveInt = Field(
        3, description="Seeds for each of them: the recipe's seed + 1, + 2, ...; the search's own does not count."
    )
    refit: bool = Field(
        False,
        description="After the verdict the winner is trained once more, on training and validation, with its seed and "
        "as many windows; export writes these weights, marked as not verified. `train` does it with one configuration.",
    )


class EvaluationConfig(Declaration):
    """What the winner is compared with on the test windows, and how it is looked at."""

    trees: bool = Field(True, description="Also fit and score boosted trees, the baseline that is hardest to beat.")
    lstm: bool = Field(False, description="Also train and score a small LSTM with a quantile head.")
    blends: bool = Field(
        True,
        description="Also score the weight average of the best checkpoints and blends of forecasts, weighed on "
        "validation. The average is exported where it is better by 0.5% or more, the blend of best and zero-shot "
        "where that is better than both by 1% or more.",
    )
    segments: list[str] = Field(
        default_factory=list, description="Columns by whose values errors are told apart; they need no role."
    )

    @model_validator(mode="after")
    def _tables_of_their_own(self) -> Self:
        rule = f"must not name a column like a table that is always there ({', '.join(BUILT_IN_SEGMENTS)}), but names"
        remedy = "Rename the column in the file, or leave it out"
        taken = [(number, column) for number, column in enumerate(self.segments) if column in BUILT_IN_SEGMENTS]
        refuse(Breach(("segments", number), f"{rule} {column!r}", remedy) for number, column in taken)
        return self


class Tracking(Declaration):
    """The MLflow mirror of the sweep."""

    enabled: bool = Field(True, description="false: nothing is sent to MLflow.")
    uri: str | None = Field(None, description="A tracking server; null: MLflow's own default in this folder.")
    experiment: str = Field("chronotune", description="MLflow experiment that the run goes to.")
    registry: Name | None = Field(
        None, description="Model in MLflow's registry that gets a version when the verdict ships the winner."
    )
    upload_weights: bool = Field(
        False, description="Such a version holds the weights too, not only their place and SHA-256."
    )

    @model_validator(mode="after")
    def _weights_need_a_registry(self) -> Self:
        if self.upload_weights and self.registry is None:
            rule = "sends the weights along with a registered version, but tracking.registry names no model"
            refuse([Breach(("upload_weights",), rule, "Set tracking.registry, or leave it out")])
        return self

    @model_validator(mode="after")
    def _hides_no_secret(self) -> Self:
        refuse(bad_tracking(self.uri))
        return self


class Recipe(Declaration):
    """A sweep, completely described. In YAML, model, search_space and cluster may be names of shipped files."""

    name: Name = Field(description="Names the folder of the sweep and its MLflow run.")
    data: DataConfig = Field(description="The series to forecast.")
    horizon: PositiveInt = Field(description="Steps to forecast.")
    split: SplitConfig = Field(SplitConfig(), description="How time is cut into training, validation and test.")
    model: ModelPreset = Field(description="Which weights to fine-tune.")
    search_space: SearchSpace = Field(description="What may vary between trials.")
    objective: Objective = Field("sql", description="Validation metric to minimise, in original units.")
    budget: Budget = Field(description="What the sweep may spend.")
    early_stopping: EarlyStopping = Field(EarlyStopping(), description="When a trial is given up.")
    search: SearchConfig = Field(SearchConfig(), description="How configurations are proposed.")
    finalists: Finalists = Field(Finalists(), description="How many of the best are trained again, and how often.")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="The comparison on the test windows.")
    seed: int = Field(0, ge=0, lt=2**31, description="Of the search and of every trial's training.")
    tracking: Tracking = Field(Tracking(), description="The MLflow mirror of the sweep.")
    cluster: ClusterProfile = Field(LOCAL, description="Where the trials run; left out: on this machine.")
    storage: str | None = Field(
        None,
        description="The database that keeps the study: sqlite:///FILE.db, or postgresql+psycopg://USER@HOST/NAME, its "
        "password as ${VARIABLE} or in PGPASSWORD. null: study.journal in the sweep's folder.",
    )

    @property
    def grace(self) -> int:
        """Windows of the first rung."""
        default = math.ceil(self.budget.windows / (2 * self.early_stopping.reduction))
        return self.early_stopping.grace or default

    @property
    def rungs(self) -> tuple[int, ...]:
        """Windows seen at which a trial is scored, the last being where its training ends."""
        end = self.budget.stop_at or self.budget.windows
        rungs, rung = [], self.grace
        while rung < end:
            rungs.append(rung)
            rung *= self.early_stopping.reduction
        return (*rungs, end)

    @property
    def checkpoints_at_work(self) -> int:
        """Finished trials whose best checkpoint stays until there is a winner: they may be averaged with it."""
        return max(self.budget.keep_checkpoints, 4 if self.evaluation.blends else 1)

    @property
    def stride(self) -> int:
        """Steps between possible forecast origins."""
        return self.split.stride or self.horizon

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        rules = (_a_blend, _unknown_sets, _too_long_contexts, _lora_without_rank, _late_grace, _others_course)
        breaches = [breach for rule in rules for breach in rule(self)]
        breaches += bad_storage(self.storage)
        refuse([*breaches, *points_outside(self.search, self.search_space), *no_grid(self.search, self.search_space)])
        return self


def _path_breaches(data: DataConfig) -> Iterator[Breach]:
    if data.source == "file" and data.path is None:
        yield Breach(("path",), "is needed when source is file", "Give the path of a CSV or Parquet file")
    if data.source == "solar" and data.path is not None:
        yield Breach(
            ("path",),
            f"has no meaning for the embedded solar data, but is {data.path}",
            "Remove it, or set source: file",
        )


def _role_breaches(data: DataConfig) -> Iterator[Breach]:
    singles = {"time": data.time, "target": data.target, "id": data.id}
    roles = [(key, column) for key, column in singles.items() if column is not None]
    roles += [("past_only", column) for column in data.past_only]
    roles += [("known_future", column) for column in data.known_future]
    first: dict[str, str] = {}
    for key, column in roles:
        if column in first:
            rule = f"repeats column {column!r}, which {first[column]} already has, but a column has one role"
            yield Breach((key,), rule, "Name it in one place only")
        first.setdefault(column, key)


def _trust_breaches(data: DataConfig) -> Iterator[Breach]:
    if strange := [column for column in data.trust_known_future if column not in data.known_future]:
        rule = f"may only name columns of known_future, but names {', '.join(map(repr, strange))}"
        yield Breach(("trust_known_future",), rule, "Declare them there too, or leave them out")


def _set_breaches(data: DataConfig) -> Iterator[Breach]:
    declared = [*data.past_only, *data.known_future]
    for name, columns in data.covariate_sets.items():
        if name in BUILT_IN_SETS:
            yield Breach(("covariate_sets", name), "is built in and cannot be redefined", "Choose another name")
        if strange := [column for column in columns if column not in declared]:
            yield Breach(
                ("covariate_sets", name),
                f"may only hold declared covariates, but holds {', '.join(map(repr, strange))}",
                "Declare them under past_only or known_future first",
            )


def _unknown_sets(recipe: Recipe) -> Iterator[Breach]:
    known = recipe.data.sets
    for name in extremes(recipe.search_space.covariates):
        if name not in known:
            yield Breach(
                ("search_space", "covariates"),
                f"must name covariate sets of the recipe ({', '.join(known)}), but names {name!r}",
                "Define it under data.covariate_sets, or leave it out",
            )


def _a_blend(recipe: Recipe) -> Iterator[Breach]:
    if recipe.model.members:
        rule = f"must be one model to be fine-tuned, but {recipe.model.name} is a blend of {len(recipe.model.members)}"
        yield Breach(("model",), rule, "Take the base that it was tuned from, or remove members from its preset.yaml")


def _too_long_contexts(recipe: Recipe) -> Iterator[Breach]:
    longest, limit = max(extremes(recipe.search_space.context_length)), recipe.model.max_context_length
    if longest > limit:
        yield Breach(
            ("search_space", "context_length"),
            f"reaches {longest}, but model {recipe.model.name} takes at most {limit}",
            "Shorten it, or choose a search space made for this model",
        )


def _lora_without_rank(recipe: Recipe) -> Iterator[Breach]:
    space = recipe.search_space
    rank_when = space.lora_rank.when.get("mode", "lora")
    wanted = rank_when if isinstance(rank_when, list) else [rank_when]
    if "lora" in extremes(space.mode) and "lora" not in wanted:
        rule = f"must apply to every LoRA trial, but only applies when mode is {rank_when}"
        yield Breach(("search_space", "lora_rank"), rule, "Write when: {mode: lora}")


def _late_grace(recipe: Recipe) -> Iterator[Breach]:
    if (grace := recipe.grace) > (windows := recipe.budget.windows):
        yield Breach(
            ("early_stopping", "grace"),
            f"must not exceed budget.windows, but {grace} > {windows}",
            "Remove it: by default it fits",
        )


def _others_course(recipe: Recipe) -> Iterator[Breach]:
    space = recipe.search_space.parameters
    searched = [name for name, parameter in space.items() if len(set(extremes(parameter))) > 1]
    found = {"splits": "each trial finds out what fits into memory", "threads": "each trial has those of its slot"}
    for key, instead in found.items():
        if getattr(recipe.budget, key) and searched:
            yield Breach(
                ("budget", key),
                f"repeat the run of one configuration, but search_space leaves {', '.join(searched)} to search",
                f"Remove them (--set budget.{key}=null): {instead}",
            )


def stored(recipe: Mapping[str, Any]) -> Recipe:
    """The recipe that a sweep's study holds, whichever version began it."""
    return Recipe.model_validate({**recipe, "cluster": as_meant(recipe["cluster"])})


def distinct_sets(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """Covariate sets that the space can ask for, by name; sets with equal columns appear once."""
    seen: dict[tuple[str, ...], str] = {}
    for name in extremes(recipe.search_space.covariates):
        seen.setdefault(recipe.data.sets[name], name)
    return {name: columns for columns, name in seen.items()}


def without_segments(recipe: Recipe) -> Recipe:
    """The same recipe without columns that tell errors apart, for what makes no tables of them."""
    return recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"segments": []})})


def without_duplicate_sets(recipe: Recipe) -> Recipe:
    """The same recipe with only one name for each distinct covariate set, so that no trial is run twice."""
    parameter, names = recipe.search_space.covariates, list(distinct_sets(recipe))
    if not isinstance(parameter, Choice) or len(names) == len(parameter.values):
        return recipe
    kept = Choice(values=list(names)) if len(names) > 1 else Fixed(value=names[0])
    space = recipe.search_space.model_copy(update={"covariates": kept})
    points = [_with_set(point, recipe) for point in recipe.search.enqueue]
    search = recipe.search.model_copy(update={"enqueue": points})
    return recipe.model_copy(update={"search_space": space, "search": search})


def _with_set(point: Point, recipe: Recipe) -> Point:
    """The point with the name under which its covariate set is searched."""
    if point.covariates is None:
        return point
    columns = recipe.data.sets[point.covariates]
    [name] = [name for name, known in distinct_sets(recipe).items() if known == columns]
    return point.model_copy(update={"covariates": name})
