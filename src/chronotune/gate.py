"""What follows from a verdict: whether a sweep's winner goes out as the better model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chronotune.config.model import ModelPreset
from chronotune.records import Reading
from chronotune.verdict import Decision

SHIP: Decision = "ship the challenger"
UNVERIFIED = "not verified: trained on validation too"
"""The mark of a refit, wherever it is shown: nothing has measured its weights."""


def decision_of(evaluation: Mapping[str, Any] | None) -> str | None:
    """What an evaluation decided on the winner; None without an evaluation, or in one of before there were verdicts."""
    return ((evaluation or {}).get("verdict") or {}).get("decision")


def is_shipped(evaluation: Mapping[str, Any] | None) -> bool:
    """Whether the verdict says that the winner is better than zero-shot."""
    return decision_of(evaluation) == SHIP


def is_named(preset: ModelPreset, reading: Reading) -> bool:
    """Whether these are the weights that the study calls its winner: a driver writes them first, and may be killed."""
    return preset.revision == (reading.attributes.get("winner") or {}).get("sha256")


def is_refit(preset: ModelPreset, reading: Reading) -> bool:
    """Whether these are the weights of the refit of the winner that the study names now."""
    refit: str | None = (reading.attributes.get("winner") or {}).get("refit_sha256")
    return refit is not None and preset.revision == refit


def doubt(evaluation: Mapping[str, Any] | None) -> str:
    """Why a winner is not shipped, in words that end without a full stop; to be asked when `is_shipped` says no."""
    if decision_of(evaluation) is None:
        return "the winner has no verdict, because the test windows were not evaluated"
    assert evaluation is not None
    return f"the verdict is to {evaluation['verdict']['sentence']}" if _keeps(evaluation) else _undecided(evaluation)


def alternative(model: str, zero_shot: Mapping[str, Any] | None) -> str:
    """The untouched base model as validation preferred to feed it."""
    if zero_shot is None:
        return f"{model} as it is"
    return f"{model} as it is, with context {zero_shot['context_length']} and covariates {zero_shot['covariates']}"


def _keeps(evaluation: Mapping[str, Any]) -> bool:
    return decision_of(evaluation) == "keep zero-shot"


def _undecided(evaluation: Mapping[str, Any]) -> str:
    return f"there is no verdict: {evaluation['verdict']['sentence']}"
