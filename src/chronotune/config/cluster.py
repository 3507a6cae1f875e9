"""Cluster profiles: where a sweep runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from chronotune.config.base import Breach, Declaration, Name, refuse
from chronotune.config.secrets import SECRETIVE, holds_credentials, holds_password, masked, query_keys

_PLACE_KEYS = ("endpoint_override", "scheme", "region")
"""What the query of an object store's address may say."""


class Environment(Declaration):
    """What a job brings along to a cluster of kind existing."""

    wheel: bool = Field(
        True, description="Send chronotune itself, as it is installed here; false: the cluster has it, in this version."
    )
    pip: list[str] = Field(
        default_factory=list, description="Requirements to install on every node, e.g. chronos-forecasting==2.3.2."
    )
    variables: dict[str, str] = Field(
        default_factory=dict, description="Environment variables of driver and workers. Never a secret."
    )


class ClusterProfile(Declaration):
    """Where trials run, and what each of them gets."""

    name: Name = Field(description="For display.")
    kind: Literal["local", "existing", "here"] = Field(
        "local",
        description="local: Ray is started on this machine; existing: a job is submitted to a running cluster; "
        "here: the cluster that this machine is a node of.",
    )
    address: str | None = Field(
        None, description="existing: the cluster's dashboard, http://HOST:8265; here: HOST:6379, null: found by itself."
    )
    cpus_per_trial: PositiveInt = Field(1, description="CPU threads of one trial.")
    gpus_per_trial: NonNegativeFloat | Literal["auto"] | None = Field(
        None,
        description="GPUs of one trial; fractions such as 0.5 share one; null: 1 where there are GPUs, else 0; "
        "auto: the fraction that holds the predicted memory of the largest trial.",
    )
    memory_per_trial: PositiveFloat | None = Field(
        None, description="GB of a node's memory that Ray sets aside for one trial; null: none in particular."
    )
    max_concurrent: PositiveInt | None = Field(
        None, description="Trials at a time; null: as many as fit, at any time on the nodes that are there then."
    )
    sweeps: str | None = Field(
        None,
        description="Folder for new sweeps; for kind existing one of the cluster's, which all its nodes mount at this "
        "path. null: sweeps/ in the current directory.",
    )
    survives: Literal["driver", "head"] = Field(
        "driver",
        description="What a sweep's record must outlive: its driver; or also the disk of the cluster's head, so that "
        "the sweep's folder must be on a network's file system, and checkpoints and study there or further off.",
    )
    environment: Environment = Field(Environment(), description="What a job brings along; for kind existing.")
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


def as_meant(profile: Mapping[str, Any]) -> Mapping[str, Any]:
    """A sweep's own profile in today's words: `existing` once was what `here` is, and came without `environment`."""
    earlier = profile.get("kind") == "existing" and "environment" not in profile
    return {**profile, "kind": "here"} if earlier and "://" not in str(profile.get("address")) else profile


def _breaches(profile: ClusterProfile) -> Iterator[Breach]:
    yield from _address_breaches(profile)
    yield from _place_breaches(profile.checkpoints or "")
    gpus = profile.gpus_per_trial
    if isinstance(gpus, float) and gpus > 1 and gpus != int(gpus):
        yield Breach(
            ("gpus_per_trial",), f"must be whole above 1, but is {gpus}", "Only fractions below 1 can share a GPU"
        )
    yield from _job_breaches(profile)
    yield from _environment_breaches(profile.environment)


def _address_breaches(profile: ClusterProfile) -> Iterator[Breach]:
    key, address = ("address",), profile.address or ""
    is_url, shown = address.startswith(("http://", "https://")), masked(address)
    if profile.kind == "local" and profile.address is not None:
        yield Breach(key, f"has no meaning when kind is local, but is {shown}", "Remove it, or set kind: existing")
    elif profile.kind == "existing" and not is_url:
        found = "is missing" if profile.address is None else f"is {shown}"
        yield Breach(
            key,
            f"must be the cluster's dashboard when kind is existing, but {found}",
            "Write address: http://HOST:8265, or kind: here on a node of the cluster",
        )
    elif profile.kind == "here" and "://" in address:  # Tune would run, and write the study, on the head
        yield Breach(
            key,
            f"must be auto or HOST:6379, as Ray's client cannot drive a sweep, but is {shown}",
            "Remove it and run chronotune on a node of the cluster, or set kind: existing",
        )
    if "@" in address or holds_credentials(address):
        yield Breach(key, "must hold no user and no password", "Put the cluster's token into RAY_AUTH_TOKEN")


def _job_breaches(profile: ClusterProfile) -> Iterator[Breach]:
    sweeps = profile.sweeps
    if profile.kind != "existing":
        if profile.environment != Environment():
            rule = f"is what a job brings along, but kind is {profile.kind}"
            yield Breach(("environment",), rule, "Remove it, or set kind: existing")
    elif sweeps is None or not PurePosixPath(sweeps).is_absolute():
        found = "is missing" if sweeps is None else f"is {sweeps}"
        rule = f"must be an absolute path when kind is existing, as a job has no lasting folder, but {found}"
        yield Breach(("sweeps",), rule, "Name a folder that all nodes mount, e.g. sweeps: /mnt/shared/sweeps")


def _environment_breaches(environment: Environment) -> Iterator[Breach]:
    on_nodes = "Set it on the cluster's nodes when they are started"
    for name, value in environment.variables.items():
        if SECRETIVE.search(name):
            rule = "sounds like a secret, but the dashboard shows what a job is given"
            yield Breach(("environment", "variables", name), rule, on_nodes)
        elif "://" in value and (holds_password(value) or holds_credentials(value)):
            rule = "must hold no credentials, as the dashboard shows what a job is given, but does"
            yield Breach(("environment", "variables", name), rule, on_nodes)
    for index, text in enumerate(environment.pip):
        if holds_credentials(text):
            rule = "must hold no credentials, as the dashboard shows what a job is given, but does"
            yield Breach(
                ("environment", "pip", index),
                rule,
                "Write ${VARIABLE} in their place and set it on each node, or log in there",
            )


def _place_breaches(place: str) -> Iterator[Breach]:
    scheme, mark, rest = place.partition("://")
    if mark and scheme != "s3":
        rule = f"must be a path or an address that begins with s3://, but is of {scheme}://"
        yield Breach(("checkpoints",), rule, "Most object stores have an S3 endpoint: ?endpoint_override=HOST:PORT")
    elif mark and re.match(r"[^/]*@|.*:.*@", rest):  # not shown: it would be in logs and studies
        rule = "must hold no credentials, but has some before the @"
        yield Breach(("checkpoints",), rule, "Put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on each node")
    elif mark and (unknown := [key for key in query_keys(place) if key not in _PLACE_KEYS]):
        rule = f"may say {', '.join(_PLACE_KEYS)} after the ?, but says {', '.join(unknown)}"
        yield Breach(("checkpoints",), rule, "Remove that; credentials come from each node's environment")


LOCAL = ClusterProfile(name="local")
"""This machine, as `cluster/local.yaml` has it: where a recipe runs that names no profile."""
