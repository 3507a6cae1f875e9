"""How time is cut: training, then validation, then test, in whole blocks of the stride."""

from __future__ import annotations

import math

import numpy as np

from chronotune.config.recipe import Recipe
from chronotune.data.panel import Split
from chronotune.data.sources import place
from chronotune.errors import Fault, InputError


def split_by_time(length: int, recipe: Recipe) -> Split:
    """Cut a time axis of `length` steps.

    Both held-out segments are the largest whole number of strides that their share allows. Test origins are every
    stride from the first test step on, as long as the horizon fits; validation origins are spread evenly over those
    whose horizon ends before the test segment. With a stride shorter than the horizon, training targets must still
    end at `train_end`, or they would overlap those of validation.

    Raises:
        InputError: A segment has no room for a forecast, or training none for a past and a horizon.
    """
    shares, horizon, stride = recipe.split, recipe.horizon, recipe.stride
    test_start = length - _blocks(length, shares.test, stride) * stride
    train_end = test_start - _blocks(length, shares.validation, stride) * stride
    test = range(test_start, length - horizon + 1, stride)
    validation = range(train_end, test_start - horizon + 1, stride)
    faults = [
        *([] if test else [_no_room("test", shares.test, length, recipe)]),
        *([] if validation else [_no_room("validation", shares.validation, length, recipe)]),
        *_no_training(train_end, length, recipe),
    ]
    if faults:
        raise InputError(faults)
    return Split(train_end, test_start, length, _spread(validation, shares.validation_origins), tuple(test))


def _blocks(length: int, share: float, stride: int) -> int:
    # shares are decimal fractions: .3 x 10 must give 3, not 2
    return math.floor(share * length / stride + 1e-9)


def _spread(candidates: range, wanted: int) -> tuple[int, ...]:
    """`wanted` of the candidates at even distances, first and last included; all when they are fewer."""
    if len(candidates) <= wanted:
        return tuple(candidates)
    if wanted == 1:
        return (candidates[-1],)
    return tuple(candidates[place] for place in np.linspace(0, len(candidates) - 1, wanted).round().astype(int))


def _no_room(segment: str, share: float, length: int, recipe: Recipe) -> Fault:
    steps = _blocks(length, share, recipe.stride) * recipe.stride
    rule = (
        f"the {segment} segment must hold a horizon of {recipe.horizon} steps, but {share:g} of {length:,} steps, "
        f"in whole strides of {recipe.stride}, is {steps}"
    )
    remedy = "Give it a larger share, or more data, or a shorter horizon"
    return Fault(place(recipe.data), f"split.{segment}", rule, remedy)


def _no_training(train_end: int, length: int, recipe: Recipe) -> list[Fault]:
    past, horizon = max(recipe.data.seasons[0], recipe.horizon), recipe.horizon
    if train_end >= past + horizon:
        return []
    rule = (
        f"training must hold a past of {past} steps (the season, at least the horizon) and a horizon of {horizon}, "
        f"but {train_end:,} of {length:,} steps are left for it"
    )
    remedy = "Hold out less, or give more data, or forecast a shorter horizon"
    return [Fault(place(recipe.data), "split", rule, remedy)]
