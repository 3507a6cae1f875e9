"""Cluster profiles: where a sweep runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from chronotune.config.base import Breach, Declaration, Name, refuse


class ClusterProfile(Declaration):
    """Where trials run, and what each of them gets."""

    name: Name = Field(description="For display.")
    kind: Literal["local", "existing"] = Field(
        "local", description="local: Ray is started on this machine; existing: connect to a running cluster."
    )
    address: str | None = Field(None, description="Of an existing cluster: auto on its own nodes, or ray://host:10001.")
    cpus_per_trial: PositiveInt = Field(1, description="CPU threads of one trial.")
    gpus_per_trial: NonNegativeFloat = Field(0, description="GPUs of one trial; fractions such as 0.5 share one.")
    max_concurrent: PositiveInt | None = Field(None, description="Trials at a time; null: as many as fit.")

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        refuse(_breaches(self))
        return self


def _breaches(profile: ClusterProfile) -> Iterator[Breach]:
    if profile.kind == "existing" and profile.address is None:
        yield Breach(
            ("address",),
            "is needed when kind is existing",
            "Write address: auto on a node of the cluster, else ray://host:10001",
        )
    if profile.kind == "local" and profile.address is not None:
        yield Breach(
            ("address",),
            f"has no meaning when kind is local, but is {profile.address}",
            "Remove it, or set kind: existing",
        )
    if profile.gpus_per_trial > 1 and profile.gpus_per_trial != int(profile.gpus_per_trial):
        yield Breach(
            ("gpus_per_trial",),
            f"must be whole above 1, but is {profile.gpus_per_trial}",
            "Only fractions below 1 can share a GPU",
        )
