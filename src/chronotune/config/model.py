"""Model presets: which weights to start from, and how an exported model wants to be fed."""

from __future__ import annotations

from datetime import timedelta

from pydantic import AwareDatetime, Field, PositiveInt

from chronotune.config.base import Declaration, Name


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


class Provenance(Declaration):
    """Where an exported model comes from."""

    created: AwareDatetime = Field(description="When it was exported, with its time zone.")
    base: str = Field(description="The weights that it was fine-tuned from, with their revision.")
    recipe: str = Field(description="Name of the recipe that trained it.")
    trial: int | None = Field(None, description="Its number in the sweep; null when trained alone.")
    seed: int | None = Field(None, description="Of this training.")
    windows_seen: PositiveInt = Field(description="Training windows behind these weights.")
    objective: str = Field(description="Metric of the validation score.")
    validation_score: float = Field(description="On the validation origins of that recipe, in original units.")
    chronotune: str = Field(description="The version that wrote it.")
    verdict: str | None = Field(None, description="What its sweep's test windows said of it; null when not asked.")
    forced: bool = Field(False, description="Exported by --force, although the verdict is not to ship it.")


class ModelPreset(Declaration):
    """A foundation model, or one that chronotune has fine-tuned."""

    name: Name = Field(description="For display, and in the names of what is exported.")
    weights: str = Field(description="A Hugging Face id, or a folder (relative to this file).")
    revision: str | None = Field(None, description="Commit of a Hugging Face id, or SHA-256 of a folder's weights.")
    max_context_length: PositiveInt = Field(8192, description="No trial may ask for a longer context.")
    serving: Serving | None = Field(None, description="Written by export.")
    provenance: Provenance | None = Field(None, description="Written by export.")
