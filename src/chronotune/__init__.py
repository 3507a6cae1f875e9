"""Chronotune: hyperparameter tuning for fine-tuning Chronos-2.

>>> import chronotune
>>> recipe = chronotune.load_recipe("tuning/quickstart.yaml", ["budget.trials=6"])
>>> folder = chronotune.run_sweep(recipe)                       # doctest: +SKIP
>>> chronotune.leaderboard(folder)                              # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from chronotune.config.load import load_recipe
    from chronotune.errors import ChronotuneError, InputError
    from chronotune.export import export_winner
    from chronotune.results import leaderboard
    from chronotune.serving import Columns, forecast
    from chronotune.standalone import evaluate
    from chronotune.sweep import resume_sweep, run_sweep
    from chronotune.train import train_recipe

# `import chronotune` costs nothing: what a name needs (torch, ray) is imported when the name is used
_HOMES = {
    "ChronotuneError": "chronotune.errors",
    "Columns": "chronotune.serving",
    "InputError": "chronotune.errors",
    "evaluate": "chronotune.standalone",
    "export_winner": "chronotune.export",
    "forecast": "chronotune.serving",
    "leaderboard": "chronotune.results",
    "load_recipe": "chronotune.config.load",
    "resume_sweep": "chronotune.sweep",
    "run_sweep": "chronotune.sweep",
    "train_recipe": "chronotune.train",
}

__all__ = [
    "ChronotuneError",
    "Columns",
    "InputError",
    "evaluate",
    "export_winner",
    "forecast",
    "leaderboard",
    "load_recipe",
    "resume_sweep",
    "run_sweep",
    "train_recipe",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*globals(), *__all__])
