"""How time is cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from data_parts import PLANT, SOLAR, recipe_of

from chronotune.data.panel import Split
from chronotune.data.split import split_by_time
from chronotune.errors import InputError


def cut(length: int, *, horizon: int = 24, seasons: tuple[int, ...] = (24,), **shares: Any) -> Split:
    """The split of an axis of this length."""
    return split_by_time(length, recipe_of({**PLANT, "seasons": list(seasons)}, horizon=horizon, split=shares))


def test_solar() -> None:
    """A fifth of the year is 73 days, each of which is a test window."""
    split = split_by_time(8760, recipe_of(SOLAR))
    assert (split.train_end, split.test_start, split.end) == (5712, 7008, 8760)
    assert split.test_origins == tuple(range(7008, 8760, 24))
    assert len(split.test_origins) == 73


def test_validation_origins_are_spread_evenly() -> None:
    """First and last candidate are among them, and distances differ by one stride at most."""
    origins = cut(8760, validation=0.2, validation_origins=24).validation_origins
    assert len(origins) == 24
    assert (origins[0], origins[-1]) == (5256, 7008 - 24)
    distances = {b - a for a, b in pairwise(origins)}
    assert distances <= {72, 96}


def test_few_candidates_are_all_used() -> None:
    """More origins than there are cannot be had; a single one is the latest."""
    assert cut(1000, validation=0.1, validation_origins=24).validation_origins == (712, 736, 760, 784)
    assert cut(1000, validation=0.1, validation_origins=1).validation_origins == (784,)


@pytest.mark.parametrize("length", [480, 481, 500, 503])
@pytest.mark.parametrize(("horizon", "stride"), [(24, 24), (24, 6), (24, 1), (12, 24), (7, 5)])
def test_targets_stay_inside_their_segment(length: int, horizon: int, stride: int) -> None:
    """Whatever the stride: validation ends before test, test before the end, origins are whole strides apart."""
    split = cut(length, horizon=horizon, stride=stride, validation_origins=500)
    assert 0 < split.train_end <= split.validation_origins[0]
    assert split.validation_origins[-1] + horizon <= split.test_start == split.test_origins[0]
    assert split.test_start - split.validation_origins[-1] < horizon + stride
    assert split.test_origins[-1] + horizon <= split.end == length
    assert length - split.test_origins[-1] < horizon + stride
    assert {o % stride for o in split.test_origins + split.validation_origins} == {split.test_start % stride}


def test_decimal_shares_are_exact() -> None:
    """0.3 of 10 strides is 3, although 0.3 * 240 / 24 is less in binary."""
    assert cut(240, test=0.3, validation=0.1).test_start == 7 * 24
    assert cut(24 * 1000, test=0.57, validation=0.1).test_start == 430 * 24


@pytest.mark.parametrize(
    ("length", "shares", "keys"),
    [
        (100, {}, ["split.test", "split.validation"]),
        (480, {"test": 0.04}, ["split.test"]),
        (480, {"validation": 0.04}, ["split.validation"]),
        (480, {"validation": 0.5, "test": 0.45}, ["split"]),
        (480, {"stride": 4, "test": 0.04}, ["split.test"]),
    ],
)
def test_empty_segments(length: int, shares: dict[str, Any], keys: list[str]) -> None:
    """Each segment without room is a fault of its own."""
    with pytest.raises(InputError) as caught:
        cut(length, **shares)
    assert [fault.key for fault in caught.value.faults] == keys


def test_training_must_hold_a_season() -> None:
    """Without one there is neither a scale nor anything to learn from."""
    with pytest.raises(InputError, match=r"a past of 400 steps .* but 312 of 480 steps are left for it"):
        cut(480, seasons=(400,))
