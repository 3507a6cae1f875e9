"""Points of a search space, whole or in part: whether one lies in it, and the grid of all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from chronotune.config.space import Choice, Fixed, FloatRange, IntRange, Scalar, SearchSpace

Values: TypeAlias = Mapping[str, Scalar]
"""Hyperparameters by name; those that are not there are left to the sampler."""

LARGEST_GRID = 100_000
"""Points of a space beyond which nobody means to try them all."""


def contains(parameter: FloatRange | IntRange | Choice | Fixed, value: Any) -> bool:
    """Whether a parameter can take `value`; 8 and 8.0 are the same, 8 and the text 8 are not."""
    match parameter:
        case FloatRange():
            return _is_number(value) and parameter.low <= value <= parameter.high
        case IntRange():
            inside = _is_number(value) and parameter.low <= value <= parameter.high
            return inside and (value - parameter.low) % parameter.step == 0
        case Choice():
            return any(_same(value, one) for one in parameter.values)
        case Fixed():
            return _same(value, parameter.value)


def described(parameter: FloatRange | IntRange | Choice | Fixed) -> str:
    """The values of a parameter in words: `1e-05 to 0.003`, `2, 4 or 8`."""
    match parameter:
        case FloatRange() | IntRange():
            step = getattr(parameter, "step", 1)
            return f"{parameter.low} to {parameter.high}{f' in steps of {step}' if step > 1 else ''}"
        case Choice():
            *most, last = map(str, parameter.values)
            return f"{', '.join(most)} or {last}" if most else last
        case Fixed():
            return str(parameter.value)


def outside(values: Values, space: SearchSpace) -> dict[str, str]:
    """Why a point does not lie in the space: by parameter, a rule that reads on after its name; empty when it does.

    A conditional parameter may be given only where the point itself, or what the space fixes, meets its condition.
    """
    known = {**fixed(space), **values}
    found = {}
    for name, value in values.items():
        parameter = space.parameters[name]
        if not parameter.applies(known):
            when = " and ".join(f"{other} is {wanted}" for other, wanted in parameter.when.items())
            found[name] = f"only applies when {when}, but is given as {value}"
        elif not contains(parameter, value):
            found[name] = f"must be {described(parameter)}, but is {value}"
    return found


def fixed(space: SearchSpace) -> dict[str, Scalar]:
    """What the space does not search, where it applies to every point."""
    return {name: p.value for name, p in space.parameters.items() if isinstance(p, Fixed) and not p.when}


def searched(values: Values, space: SearchSpace) -> dict[str, Scalar]:
    """The part of a point that the space searches, each value as the space writes it (8, not 8.0)."""
    entries = space.parameters
    return {name: _written(entries[name], v) for name, v in values.items() if not isinstance(entries[name], Fixed)}


def matches(point: Values, partial: Values) -> bool:
    """Whether `point` has all the values of `partial`."""
    return all(name in point and _same(point[name], value) for name, value in partial.items())


def continuous(space: SearchSpace) -> list[str]:
    """Parameters with endlessly many values, of which no grid can be made."""
    return [n for n, p in space.parameters.items() if isinstance(p, FloatRange) and p.low < p.high]


def size(space: SearchSpace) -> int | None:
    """How many points a space has; None when they are endless, or too many to ever try."""
    return len(grid(space)) if not continuous(space) and grid_size(space) <= LARGEST_GRID else None


def grid_size(space: SearchSpace) -> int:
    """At most this many points has the grid of a space; conditions may leave fewer."""
    return math.prod(len(_values(parameter)) for parameter in space.parameters.values())


def grid(space: SearchSpace) -> list[dict[str, Scalar]]:
    """Every point of a space without continuous ranges, each once; what the space fixes is left out."""
    return list(_points({}, list(space.parameters.items()), fixed(space)))


def _points(
    chosen: dict[str, Scalar], rest: Sequence[tuple[str, FloatRange | IntRange | Choice | Fixed]], known: Values
) -> Iterator[dict[str, Scalar]]:
    if not rest:
        yield chosen
        return
    (name, parameter), later = rest[0], rest[1:]
    if isinstance(parameter, Fixed) or not parameter.applies({**known, **chosen}):
        yield from _points(chosen, later, known)
        return
    for value in _values(parameter):
        yield from _points({**chosen, name: value}, later, known)


def some(parameter: FloatRange | IntRange | Choice | Fixed, most: int) -> list[Any]:
    """Of a range of whole numbers both ends and others at even distances, at most so many; else all its values."""
    values = _values(parameter)
    if not isinstance(parameter, IntRange) or len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]


def _values(parameter: FloatRange | IntRange | Choice | Fixed) -> Sequence[Any]:
    match parameter:
        case FloatRange():
            return [parameter.low]
        case IntRange():
            return range(parameter.low, parameter.high + 1, parameter.step)
        case Choice():
            return parameter.values
        case Fixed():
            return [parameter.value]


def _written(parameter: FloatRange | IntRange | Choice | Fixed, value: Scalar) -> Scalar:
    match parameter:
        case FloatRange():
            return float(value)
        case IntRange():
            return int(value)
        case Choice():
            return next(one for one in parameter.values if _same(value, one))
        case Fixed():
            return parameter.value


def _same(one: object, other: object) -> bool:
    if _is_number(one) and _is_number(other):
        return one == other
    return type(one) is type(other) and one == other


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
