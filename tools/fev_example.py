"""The scores that fev gives a small example: what tests/test_metrics.py compares ours with, as fev 0.10.0 computed it.

fev cannot be installed beside chronotune (it wants older libraries). In an environment of its own:
    pip install fev==0.10.0 && python tools/fev_example.py > tests/fev_example.json
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import numpy as np

WINDOWS, HORIZON, SEASON = 5, 12, 6
LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
NAMES = ("SQL", "WQL", "MASE", "MAE", "RMSE", "MAPE", "WAPE")


def example() -> dict[str, Any]:
    """Five windows of series with a season, a zero among the actual values, and quantiles that do not cross."""
    random = np.random.default_rng(6)
    time = np.arange(40 + HORIZON)
    level = random.uniform(1, 20, (WINDOWS, 1))
    series = np.round(level * (1 + 0.5 * np.sin(2 * np.pi * time / SEASON)) + random.normal(0, 1, (WINDOWS, 52)), 3)
    series[2, 45] = 0.0
    quantiles = np.sort(level[:, None] + random.normal(0, 4, (WINDOWS, 9, HORIZON)), axis=1).round(3)
    return {"past": series[:, :40].tolist(), "actual": series[:, 40:].tolist(), "quantiles": quantiles.tolist()}


def scores(past: Any, actual: Any, quantiles: Any) -> dict[str, float]:
    """What fev's metrics say of it."""
    past, actual, quantiles = np.array(past), np.array(actual), np.array(quantiles)
    inputs = {
        "y_true": actual[:, :, None],
        "y_pred": quantiles[:, 4, :, None],
        "y_past": past.reshape(-1, 1),
        "y_past_lengths": np.full(len(past), past.shape[1]),
        "q_pred": quantiles.transpose(0, 2, 1)[:, :, None, :],
        "seasonality": SEASON,
        "quantile_levels": LEVELS,
    }
    metrics = import_module("fev.metrics")
    return {name.lower(): metrics.get_metric(name).compute(**inputs) for name in NAMES}


if __name__ == "__main__":
    made = example()
    print(json.dumps({"season": SEASON, **made, "scores": scores(**made)}))
