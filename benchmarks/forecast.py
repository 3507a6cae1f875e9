"""Rolling forecasts of the steel plant, beside one window at a time and beside `Chronos2Pipeline.predict`.

    python benchmarks/forecast.py             73 days with nine covariates, model tiny: a table
    python benchmarks/forecast.py --json      one JSON object
    python benchmarks/forecast.py --quick     few days and a short context: to see that it runs, not for figures

The library gets the windows as a list of dictionaries, made beforehand. What is compared: README.md beside this file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from command import carry_out
from evaluation_sets import rolling
from numpy.typing import NDArray
from readers import steel_measurements
from sidebyside import ROUNDS, Pair, alternate, threads

from chronotune.config.load import load_model
from chronotune.data.panel import Panel, Window

if TYPE_CHECKING:
    from chronos.chronos2.model import Chronos2Model

HORIZON, CONTEXT = 96, 1008
QUICK_WINDOWS, QUICK_CONTEXT = 3, 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code."""
    options = _options().parse_args(arguments)
    with threads(options.threads):
        return carry_out(options, lambda: benchmark(options), print_table)


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """Both comparisons.

    Returns:
        What `--json` prints: `ratio` to the library and `ratio_one_at_a_time`, the windows a second of all three, and
        the largest difference from the library's quantiles, in standard deviations of the target and in kWh.
    """
    from chronotune.forecaster import load_model as load_weights

    model = load_weights(load_model(options.model))
    panel = steel_measurements()
    windows = rolling(panel, HORIZON)[: QUICK_WINDOWS if options.quick else None]
    context = QUICK_CONTEXT if options.quick else CONTEXT
    tasks = [as_dictionary(panel, window, context) for window in windows]
    ours: list[NDArray[np.float32]] = []
    theirs: list[NDArray[np.float32]] = []
    library = alternate(
        lambda: ours.append(_ours(model, panel, windows, context)),
        lambda: theirs.append(_theirs(model, tasks, context)),
        options.rounds,
    )
    single = alternate(
        lambda: _ours(model, panel, windows, context),
        lambda: [_ours(model, panel, [window], context) for window in windows],
        options.rounds,
    )
    difference = float(np.abs(ours[-1] - theirs[-1]).max())
    return {
        "model": options.model,
        "threads": options.threads,
        "rounds": options.rounds,
        "windows": len(windows),
        "rows": 1 + len(panel.covariates),
        "context_length": context,
        "ratio": library.ratio,
        "ratio_one_at_a_time": single.ratio,
        "max_abs_diff": difference / float(np.std(panel.series[0].target)),
        "max_abs_diff_kwh": difference,
        "windows_per_second": _rates(len(windows), library, single),
    }


def as_dictionary(panel: Panel, window: Window, context: int) -> dict[str, Any]:
    """A window as users of the library write it: views of target and covariates, and the future of the known ones.

    The library sorts covariates by name. Numbers before the names give it our order: the order of the rows decides how
    sums are rounded, and that is not what is compared.
    """
    series = panel.series[window.series]
    past = slice(max(0, window.origin - context), window.origin)
    future = slice(window.origin, window.origin + HORIZON)
    named = [f"{number:03} {name}" for number, name in enumerate(panel.covariates)]
    rows = dict(zip(named, series.covariates, strict=True))
    return {
        "target": series.target[past],
        "past_covariates": {name: values[past] for name, values in rows.items()},
        "future_covariates": {name: rows[name][future] for name in named[len(panel.past_only) :]},
    }


def _ours(model: Chronos2Model, panel: Panel, windows: Sequence[Window], context: int) -> NDArray[np.float32]:
    from chronotune.forecaster import predict_windows

    return predict_windows(model, panel, windows, context_length=context, horizon=HORIZON, covariates=panel.covariates)


def _theirs(model: Chronos2Model, tasks: list[dict[str, Any]], context: int) -> NDArray[np.float32]:
    """Shape (windows, 9, horizon), as ours: of the model's own levels, those that we forecast."""
    from plain_ways import predicted

    forecasts: NDArray[np.float32] = predicted(model, tasks, context, HORIZON)
    return forecasts


def _rates(windows: int, library: Pair, single: Pair) -> dict[str, float]:
    return {
        "ours": windows / library.ours,
        "library": windows / library.theirs,
        "one_at_a_time": windows / single.theirs,
    }


def print_table(results: dict[str, Any]) -> None:
    """A line for each way."""
    rates = results["windows_per_second"]
    print(f"{results['windows']} windows x {results['rows']} rows, C={results['context_length']}")
    print(f"{'':<38}{'windows/s':>11}{'ours is':>11}")
    print(f"{'predict_windows':<38}{rates['ours']:>11.1f}")
    print(f"{'one window at a time':<38}{rates['one_at_a_time']:>11.1f}{results['ratio_one_at_a_time']:>10.2f}x")
    print(f"{'Chronos2Pipeline.predict':<38}{rates['library']:>11.1f}{results['ratio']:>10.2f}x")
    print(f"largest difference from the library: {results['max_abs_diff']:.1e} standard deviations of the ", end="")
    print(f"target, {results['max_abs_diff_kwh']:.1e} kWh")


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="name or path of a model preset")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each is measured; the median counts")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, the same for all")
    parser.add_argument("--quick", action="store_true", help="three windows, a short context, no figures to quote")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


if __name__ == "__main__":
    sys.exit(main())
