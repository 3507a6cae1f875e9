"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def steel_csv() -> Path:
    """The steel data as UCI publishes it; a run in CI fails without it."""
    default = ROOT.parent / "shared" / "data" / "Steel_industry_data.csv"
    path = Path(os.environ.get("CHRONOTUNE_STEEL_CSV", default))
    if not path.is_file():
        message = f"the steel data must be at {path}; name another place in CHRONOTUNE_STEEL_CSV"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path.resolve()
