"""Score a model zero-shot on the evaluation sets, beside the best seasonal naive forecast.

    python benchmarks/zero_shot.py                        the four open sets, model tiny: a table
    python benchmarks/zero_shot.py --model NAME --json    another preset (a name or a path): one JSON object
    python benchmarks/zero_shot.py --sealed               the sealed sets too: once, when training has ended

The sets other than steel and solar are read from a package: pip install 'chronotune[bench]'. What the columns mean, and
how the sets were chosen: README.md beside this file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from command import carry_out
from driven import CONTEXT, HORIZON, SEASON, best_possible, driven
from evaluation_sets import EvaluationSet, choose, rolling, scales

from chronotune.baselines import seasonal_naive
from chronotune.checkpoint import sha256
from chronotune.config.load import load_model
from chronotune.config.model import ModelPreset
from chronotune.data.panel import FloatArray, Panel, Window
from chronotune.data.windows import actuals
from chronotune.errors import ChronotuneError
from chronotune.metrics import score

if TYPE_CHECKING:
    from chronos.chronos2.model import Chronos2Model

METRICS = ("sql", "wql", "mase", "coverage80")
COVERAGE = (0.7, 0.9)
"""Where the coverage of an 80% interval is called right."""


class Row(NamedTuple):
    """One forecaster on one set."""

    set: str
    forecaster: str
    scores: dict[str, float]


Report = Callable[[Row], None]
Judge = Callable[[FloatArray], dict[str, float]]
"""From predictions of shape (windows, 9, horizon) to the scores `METRICS`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code."""
    options = _options().parse_args(arguments)
    report = (lambda row: None) if options.json else print_row
    return carry_out(options, lambda: benchmark(options, report), print_summary)


def benchmark(options: argparse.Namespace, report: Report) -> dict[str, Any]:
    """Everything that was asked for, each row reported when it is there.

    Returns:
        What `--json` prints: the model and its weights, its scores on `sets`, on the `synthetic` group, and `overall`.
    """
    from chronotune.forecaster import load_model as load_weights

    began = time.perf_counter()
    chosen = choose(options.sets, sealed=options.sealed)
    panels = load_all(chosen)
    if options.threads:
        _use_threads(options.threads)
    preset = load_model(options.model)
    model = load_weights(preset)
    sets = {one.name: score_set(model, one, panel, report) for one, panel in zip(chosen, panels, strict=True)}
    synthetic = score_driven(model, report)
    seconds = round(time.perf_counter() - began, 1)
    about = {"model": preset.name, "weights": identity(preset)}
    return {**about, "sets": sets, "synthetic": synthetic, **overall(sets), "seconds": seconds}


def load_all(chosen: Sequence[EvaluationSet]) -> list[Panel]:
    """The series of all sets, before any is scored.

    Raises:
        ChronotuneError: Some cannot be read; says of each, why.
    """
    panels, missing = [], []
    for one in chosen:
        try:
            panels.append(one.load())
        except ChronotuneError as error:
            missing.append(f"{one.name}: {error}")
    if missing:
        raise ChronotuneError("\n".join(missing))
    return panels


def identity(preset: ModelPreset) -> str:
    """What the figures belong to: the beginning of the SHA-256 of a folder's weights, or the id on Hugging Face."""
    file = Path(preset.weights) / "model.safetensors"
    return sha256(file)[:12] if file.is_file() else f"{preset.weights}@{preset.revision}"


def score_set(model: Chronos2Model, one: EvaluationSet, panel: Panel, report: Report) -> dict[str, Any]:
    """One set at every context length, without covariates; at the headline also with those known ahead.

    Returns:
        The headline's scores (`sql`, ...), those of the best seasonal naive (`sql_naive`, ...: for each metric the
        period that is best at it), and under `contexts` and `with_known` the others.
    """
    from chronotune.forecaster import predict_windows

    windows = rolling(panel, one.horizon)
    judge = _judge(panel, windows, one.horizon, one.seasons[0])
    limit = model.chronos_config.context_length
    headline = min(one.headline, limit)

    def forecast(context: int, covariates: tuple[str, ...] = ()) -> dict[str, float]:
        scores = judge(
            predict_windows(model, panel, windows, context_length=context, horizon=one.horizon, covariates=covariates)
        )
        report(Row(one.name, f"C={context}{' + ' + ', '.join(covariates) if covariates else ''}", scores))
        return scores

    naive = score_naive(one, panel, windows, judge, report)
    contexts = {context: forecast(context) for context in sorted({min(c, limit) for c in one.contexts})}
    known = panel.known_future
    return {
        **contexts[headline],
        **{f"{metric}_naive": value for metric, value in naive.items()},
        "sealed": one.sealed,
        "horizon": one.horizon,
        "context_length": headline,
        "series": len(panel.series),
        "windows": len(windows),
        "contexts": contexts,
        "with_known": {"covariates": list(known), **forecast(headline, known)} if known else None,
    }


def _judge(panel: Panel, windows: Sequence[Window], horizon: int, season: int) -> Judge:
    actual, denominators = actuals(panel, windows, horizon), scales(panel, windows, season)

    def judge(predictions: FloatArray) -> dict[str, float]:
        scores = score(predictions, actual, denominators)
        return {metric: scores[metric] for metric in METRICS}

    return judge


def score_naive(
    one: EvaluationSet, panel: Panel, windows: Sequence[Window], judge: Judge, report: Report
) -> dict[str, float]:
    """For SQL, WQL and MASE the best that a seasonal naive forecast reaches with any period of the set."""
    tried = []
    for season in one.seasons:
        tried.append(judge(seasonal_naive(panel, windows, horizon=one.horizon, season=season)))
        report(Row(one.name, f"naive, {season}", tried[-1]))
    return {metric: min(scores[metric] for scores in tried) for metric in ("sql", "wql", "mase")}


def score_driven(model: Chronos2Model, report: Report) -> dict[str, float]:
    """The held-out synthetic group: pooled WQL without and with the driver, and of the law that made the series."""
    from chronotune.forecaster import predict_windows

    group = driven()
    windows = rolling(group.panel, HORIZON)
    judge = _judge(group.panel, windows, HORIZON, SEASON)
    context = min(CONTEXT, model.chronos_config.context_length)
    scores = {
        name: judge(
            predict_windows(model, group.panel, windows, context_length=context, horizon=HORIZON, covariates=covariates)
        )
        for name, covariates in (("without", ()), ("with", ("driver",)))
    }
    scores["best_possible"] = judge(best_possible(group, windows))
    for name, values in scores.items():
        report(Row("synthetic", name.replace("_", " "), values))
    wql = {f"wql_{name}": values["wql"] for name, values in scores.items()}
    return {**wql, "reduction": 1 - wql["wql_with"] / wql["wql_without"]}


def overall(sets: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Over all scored sets, and over the open and the sealed ones alone."""
    groups = {
        "": list(sets.values()),
        "_open": [one for one in sets.values() if not one["sealed"]],
        "_sealed": [one for one in sets.values() if one["sealed"]],
    }
    low, high = COVERAGE
    result: dict[str, Any] = {}
    for suffix, members in groups.items():
        result[f"sql_skill_gmean{suffix}"] = skill(members) if members else None
        result[f"wql_wins{suffix}"] = sum(one["wql"] < one["wql_naive"] for one in members)
        result[f"coverage_right{suffix}"] = sum(low <= one["coverage80"] <= high for one in members)
        result[f"sets_scored{suffix}"] = len(members)
    return result


def skill(members: Sequence[dict[str, Any]]) -> float:
    """1 - geometric mean of SQL / SQL of the best naive, as fev-bench has it (arXiv:2509.26468); 0 is no better."""
    return 1 - float(np.exp(np.mean([np.log(one["sql"] / one["sql_naive"]) for one in members])))


def print_row(row: Row) -> None:
    """One line of the table."""
    numbers = "".join(f"{row.scores[metric]:>9.3f}" for metric in METRICS)
    print(f"{row.set:<12}{row.forecaster:<34}{numbers}", flush=True)


def print_summary(results: dict[str, Any]) -> None:
    """A line a set at its headline context, and the sums."""
    print(f"\n{'set':<12}{'C':>6}{'SQL skill':>11}{'WQL':>8}{'naive':>8}{'MASE':>8}{'cov80':>8}")
    for name, one in results["sets"].items():
        print(
            f"{name:<12}{one['context_length']:>6}{skill([one]):>11.1%}{one['wql']:>8.3f}{one['wql_naive']:>8.3f}"
            f"{one['mase']:>8.3f}{one['coverage80']:>8.0%}{'  sealed' if one['sealed'] else ''}"
        )
    total, gain = results["sets_scored"], results["synthetic"]["reduction"]
    print(f"SQL skill, geometric mean: {results['sql_skill_gmean']:.1%}")
    print(f"WQL below that of the best naive: {results['wql_wins']} of {total}")
    print(f"coverage of the 80% interval between {COVERAGE[0]:.0%} and {COVERAGE[1]:.0%}: ", end="")
    print(f"{results['coverage_right']} of {total}")
    print(f"synthetic, the driver known ahead against withheld: WQL {-gain:+.0%}")
    print(f"{results['seconds']:.0f} s, weights {results['weights']}")


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="name or path of a model preset")
    parser.add_argument("--sets", nargs="+", default=[], metavar="SET", help="only these")
    parser.add_argument("--sealed", action="store_true", help="score the sealed sets too")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--threads", type=int, help="threads of torch; by default as many as it likes")
    return parser


def _use_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


if __name__ == "__main__":
    sys.exit(main())
