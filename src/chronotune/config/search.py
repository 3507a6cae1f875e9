"""How configurations are proposed: the sampler, and what it begins with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from chronotune.config.base import Breach, Declaration
from chronotune.config.points import LARGEST_GRID, Values, continuous, grid_size, outside
from chronotune.config.space import Mode, SearchSpace


class Point(Declaration):
    """A configuration to try, whole or in part: the sampler chooses what is left out."""

    learning_rate: PositiveFloat | None = Field(None, description="Peak learning rate.")
    windows: PositiveInt | None = Field(None, description="Batch size in windows.")
    accumulation: PositiveInt | None = Field(None, description="Batches per optimizer step.")
    context_length: PositiveInt | None = Field(None, description="Past steps that the model sees.")
    covariates: str | None = Field(None, description="A covariate set of the search space.")
    mode: Mode | None = Field(None, description="full or lora.")
    lora_rank: PositiveInt | None = Field(None, description="Rank of the adapters; only beside mode: lora.")

    @property
    def values(self) -> Values:
        """What is given, by name."""
        return self.model_dump(exclude_none=True)


class SearchConfig(Declaration):
    """How configurations are proposed."""

    sampler: Literal["gp", "tpe", "random", "grid"] = Field(
        "gp",
        description="gp: a Gaussian process over what every trial, however early it was stopped, would be expected to "
        "reach at full budget; from 200 trials on it gives way to tpe. tpe: learn from all past trials, those of full "
        "budget first. random: do not learn. "
        "grid: every point of a space of choices and steps once, in random order.",
    )
    startup_trials: PositiveInt = Field(5, description="Random trials before gp or tpe begins to learn.")
    enqueue: list[Point] = Field(
        default_factory=list, description="Points of the search space that are tried first, in this order."
    )
    vendor_defaults: bool = Field(
        True,
        description="Try the settings that AutoGluon (LoRA) and the Chronos-2 quickstart (full) recommend before "
        "anything is drawn, each if all of its values lie in the search space.",
    )
    warm_start: list[str] = Field(
        default_factory=list,
        description="Folders of earlier sweeps. Where data, ruler, model and budget are the same their results count "
        "for the sampler; else their few best points are tried first. Points outside the search space are left out.",
    )


def points_outside(config: SearchConfig, space: SearchSpace) -> Iterator[Breach]:
    """The points of a recipe that its space does not hold."""
    for number, point in enumerate(config.enqueue):
        for name, rule in outside(point.values, space).items():
            change = f"Change it, or widen search_space.{name}"
            remedy = change if rule.startswith("must") else "Leave it out, or set what it asks for beside it"
            yield Breach(("search", "enqueue", number, name), rule, remedy)


def no_grid(config: SearchConfig, space: SearchSpace) -> Iterator[Breach]:
    """Why no grid can be made of a recipe's space, if one is wanted."""
    if config.sampler != "grid":
        return
    for name in continuous(space):
        rule = f"is grid, which needs choices or steps, but search_space.{name} is a continuous range"
        yield Breach(("search", "sampler"), rule, "Write {type: choice, values: [...]} there, or use another sampler")
    if (size := grid_size(space)) > LARGEST_GRID:
        rule = f"is grid, which must have at most {LARGEST_GRID:,} points, but the space has up to {size:,}"
        yield Breach(("search", "sampler"), rule, "Leave fewer values in the space, or use another sampler")
