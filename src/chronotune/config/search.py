"""How configurations are proposed: the sampler, and what it begins with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from chronotune.config.base import Breach, Declaration
from chronotune.config.points import Values, outside
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

    sampler: Literal["tpe", "random"] = Field("tpe", description="tpe: learn from past trials; random: do not.")
    startup_trials: PositiveInt = Field(8, description="Random trials before TPE begins to learn.")
    enqueue: list[Point] = Field(
        default_factory=list, description="Points of the search space that are tried first, in this order."
    )
    vendor_defaults: bool = Field(
        True,
        description="Try the settings that AutoGluon (LoRA) and the Chronos-2 quickstart (full) recommend before "
        "anything is drawn, each if all of its values lie in the search space.",
    )


def points_outside(config: SearchConfig, space: SearchSpace) -> Iterator[Breach]:
    """The points of a recipe that its space does not hold."""
    for number, point in enumerate(config.enqueue):
        for name, rule in outside(point.values, space).items():
            change = f"Change it, or widen search_space.{name}"
            remedy = change if rule.startswith("must") else "Leave it out, or set what it asks for beside it"
            yield Breach(("search", "enqueue", number, name), rule, remedy)
