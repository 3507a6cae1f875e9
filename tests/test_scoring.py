"""What is particular to the ruler of the test windows; test_evaluation.py sees the rest."""

from __future__ import annotations

from datetime import timedelta

import pytest

from chronotune.scoring import overlap

QUARTER, HOUR, DAY = timedelta(minutes=15), timedelta(hours=1), timedelta(days=1)


@pytest.mark.parametrize(
    ("step", "horizon", "stride", "days"),
    [
        (QUARTER, 96, 96, 1),
        (QUARTER, 1, 1, 1),
        (QUARTER, 96, 24, 1),
        (HOUR, 48, 24, 2),
        (HOUR, 49, 24, 3),
        (HOUR, 168, 168, 1),
        (DAY, 7, 7, 1),
        (DAY, 7, 1, 7),
        (7 * DAY, 6, 4, 2),
    ],
)
def test_blocks_hold_forecasts_that_overlap(step: timedelta, horizon: int, stride: int, days: int) -> None:
    """In days; in origins for data in steps of a day or longer."""
    assert overlap(step, horizon, stride) == days
