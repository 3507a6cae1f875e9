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
    address: str | None = Field(None, description="Of an existing cluster, from one of its nodes: auto, or HOST:6379.")
    cpus_per_trial: PositiveInt = Field(1, description="CPU threads of one trial.")
    gpus_per_trial: NonNegativeFloat | None = Field(
        None, description="GPUs of one trial; fractions such as 0.5 share one; null: 1 where there are GPUs, else 0."
    )
    max_concurrent: PositiveInt | None = Field(None, description="Trials at a time; null: as many as fit.")
    checkpoints: str | None = Field(
        None,
        description="Where each sweep gets a folder for its checkpoints: a path that all nodes see, or "
        "s3://BUCKET/PREFIX, with ?endpoint_override=HOST:PORT&scheme=http for a store of your own; null: the sweep's "
        "folder. Credentials come from each node's environment.",
    )

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        refuse(_breaches(self))
        return self


def _breaches(profile: ClusterProfile) -> Iterator[Breach]:
    yield from _address_breaches(profile)
    yield from _place_breaches(profile.checkpoints or "")
    gpus = profile.gpus_per_trial or 0
    if gpus > 1 and gpus != int(gpus):
        yield Breach(
            ("gpus_per_trial",), f"must be whole above 1, but is {gpus}", "Only fractions below 1 can share a GPU"
        )


def _address_breaches(profile: ClusterProfile) -> Iterator[Breach]:
    if profile.kind == "existing" and profile.address is None:
        yield Breach(
            ("address",),
            "is needed when kind is existing",
            "Write address: auto, and run chronotune on a node of the cluster",
        )
    elif profile.kind == "local" and profile.address is not None:
        yield Breach(
            ("address",),
            f"has no meaning when kind is local, but is {profile.address}",
            "Remove it, or set kind: existing",
        )
    elif "://" in (profile.address or ""):  # Tune would then run, and write the study, on the cluster's head
        yield Breach(
            ("address",),
            f"must be auto or HOST:6379, as Ray's client cannot drive a sweep, but is {profile.address}",
            "Run chronotune on a node of the cluster with address: auto",
        )


def _place_breaches(place: str) -> Iterator[Breach]:
    scheme, mark, rest = place.partition("://")
    if mark and scheme != "s3":
        rule = f"must be a path or an address that begins with s3://, but is of {scheme}://"
        yield Breach(("checkpoints",), rule, "Most object stores have an S3 endpoint: ?endpoint_override=HOST:PORT")
    elif mark and "@" in rest.partition("/")[0]:  # not shown: it would be in logs and studies
        rule = "must hold no credentials, but has some before the @"
        yield Breach(("checkpoints",), rule, "Put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on each node")
