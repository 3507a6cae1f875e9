"""The named moments are calls of functions that exist: one that was renamed would never be reached."""

from __future__ import annotations

import importlib
from operator import attrgetter

import moments
import pytest

ALL = [value for value in vars(moments).values() if isinstance(value, moments.Moment)] + [*moments.MOMENTS.values()]


@pytest.mark.parametrize("moment", ALL, ids=[moment.told for moment in ALL])
def test_a_moment_is_the_call_of_a_function(moment: moments.Moment) -> None:
    """The script patches it by module and name."""
    assert callable(attrgetter(moment.name)(importlib.import_module(moment.module)))
