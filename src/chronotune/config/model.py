"""Model presets: which weights to start from, and how an exported model wants to be fed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Self

from pydantic import AwareDatetime, Field, PositiveInt, model_validator

from chronotune.config.base import Breach, Declaration, Name, refuse


class Encoding(Declaration):
    """How a categorical column becomes numbers; learnt on the training segment only."""

    values: dict[str, float] = Field(description="Category -> number.")
    unseen: float = Field(description="The number for a category that training did not hold.")


class Serving(Declaration):
    """How a fine-tuned model was trained to be fed, so that it is served the same way."""

    horizon: PositiveInt = Field(description="Steps that it was trained to forecast.")
    context_length: PositiveInt = Field(description="Past steps that it was trained to see.")
    step: timedelta | None = Field(
        None, description="Distance between steps, e.g. PT15M (ISO 8601); null: not recorded, so not checked."
    )
    time: str = Field(description="Column of timestamps (the start of each interval).")
    target: str = Field(description="Column that it forecasts.")
    id: str | None = Field(None, description="Column that tells series apart.")
    past_only: list[str] = Field(default_factory=list, description="Covariates whose future it does not see.")
    known_future: list[str] = Field(default_factory=list, description="Covariates whose future it sees.")
    encodings: dict[str, Encoding] = Field(default_factory=dict, description="Categorical covariates as numbers.")


class Member(Declaration):
    """One of the models whose quantiles a blend is the weighted mean of, and how it is fed."""

    folder: str = Field(description="Of its own preset.yaml, below the preset's weights; '.' for those themselves.")
    weight: float = Field(gt=0, le=1, description="Its share of the forecast; those of all members add up to 1.")
    context_length: PositiveInt = Field(description="Past steps that it sees.")
    covariates: list[str] = Field(default_factory=list, description="Those that it sees, past-only ones first.")
    revision: str | None = Field(
        None, description="SHA-256 of its weights, written for the registry; null: as its own preset.yaml says."
    )


class Provenance(Declaration):
    """Where an exported model comes from."""

    created: AwareDatetime = Field(description="When its weights were written, with its time zone.")
    base: str = Field(description="The weights that it was fine-tuned from, with their revision.")
    recipe: str = Field(description="Name of the recipe that trained it.")
    trial: int | None = Field(None, description="Its number in the sweep; null when trained alone.")
    seed: int | None = Field(None, description="Of this training.")
    windows_seen: PositiveInt = Field(description="Training windows behind these weights.")
    objective: str = Field(description="Metric of the validation score.")
    validation_score: float | None = Field(
        None, description="On the validation origins of that recipe, in original units; null: it was trained on them."
    )
    chronotune: str = Field(description="The version that wrote it.")
    verdict: str | None = Field(
        None,
        description="What its sweep's test windows said of these weights, or, where `unverified` is told, of those of "
        "the training that was repeated; null when not asked.",
    )
    unverified: str | None = Field(
        None, description="Why no verdict and no score is on these weights; null where they are those that were judged."
    )
    forced: bool = Field(False, description="Exported by --force, although the verdict is not to ship it.")
    averaged: list[str] = Field(
        default_factory=list,
        description="Trainings whose mean the weights are, if not those of one; recipe.yaml trains the first again.",
    )


class ModelPreset(Declaration):
    """A foundation model, or one that chronotune has fine-tuned."""

    name: Name = Field(description="For display, and in the names of what is exported.")
    weights: str = Field(description="A Hugging Face id, or a folder (relative to this file).")
    revision: str | None = Field(None, description="Commit of a Hugging Face id, or SHA-256 of a folder's weights.")
    max_context_length: PositiveInt = Field(8192, description="No trial may ask for a longer context.")
    members: list[Member] = Field(
        default_factory=list, description="Written by export: a blend, forecast by all of them; empty: one model."
    )
    serving: Serving | None = Field(None, description="Written by export.")
    provenance: Provenance | None = Field(None, description="Written by export.")

    @model_validator(mode="after")
    def _members_make_a_whole(self) -> Self:
        refuse(_member_breaches(self.members))
        return self


def _member_breaches(members: Sequence[Member]) -> Iterator[Breach]:
    total = sum(member.weight for member in members)
    if members and not math.isclose(total, 1, abs_tol=1e-6):
        yield Breach(("members",), f"must have weights that add up to 1, but they make {total:g}", "Export it again")
    for number, member in enumerate(members):
        path = PurePosixPath(member.folder)
        if path.is_absolute() or ".." in path.parts:
            rule = f"must lie below the preset's weights, but is {member.folder!r}"
            yield Breach(("members", number, "folder"), rule, "Copy the member into the folder, as export does")
