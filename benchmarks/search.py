"""How soon a search finds what is nearly the best, on recorded learning curves and a simulated clock.

    python benchmarks/search.py                        both tables, 30 seeds, all ways of searching: a table
    python benchmarks/search.py --json                 one JSON object
    python benchmarks/search.py --plot regret.svg      also draw the regret (needs matplotlib)
    python benchmarks/search.py --tables solar --seeds 5 --ways ours random_full

What is compared with what: README.md beside this file. Nothing is trained: curves/*.parquet are looked up.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from command import carry_out
from curves import CHANGES, Table, read_table
from simulation import Clock, Step

from chronotune.config.space import Hyperparameters
from chronotune.errors import ChronotuneError

WAYS = ("ours", "random_full", "random_asha", "ray_stock", "optuna", "optuna_pruned", "syne_tune")
ONE_AFTER_THE_OTHER = ("optuna", "optuna_pruned")
"""Ways of one trial at a time, which gets both workers' threads and is taken to be twice as fast."""
WORKERS = 2
WITHIN = 0.01
"""How near to the best known score is near enough, relatively."""
LOOKED_AT, AT_MOST = 25, 80
"""Full budgets after which searches are looked at, and at which one that has not found it is given up."""
RESAMPLES = 10_000


@dataclass(frozen=True)
class Outcome:
    """What one search came to."""

    windows: float
    """Trained by all workers until a result was within `WITHIN` of the best known; those at the end if none was."""
    seconds: float
    """Of the simulated clock, until then."""
    complete_windows: float
    """As `windows`, but until a trial of full budget was, which alone is exported."""
    found: bool
    stopped_best: bool
    """Whether of all configurations tried within `LOOKED_AT` budgets the one with the best curve was stopped early."""
    gaps: tuple[float, ...]
    """Of the best result so far above the best known, relatively, after 1, 2, ... `LOOKED_AT` full budgets."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code."""
    options = _options().parse_args(arguments)
    return carry_out(options, lambda: benchmark(options), print_tables)


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """All ways on all tables.

    Returns:
        What `--json` prints: by table, a summary of each way; over the tables, `windows_to_target` and
        `seconds_to_target` of each way (geometric means of the tables' means) and `ratio`, ours to each of them.
    """
    ways = [name for name in options.ways if name != "syne_tune" or importlib.util.find_spec("syne_tune")]
    outcomes: dict[str, dict[str, list[Outcome]]] = {}
    for name in options.tables:
        table = read_table(name)
        outcomes[name] = {}
        for way in ways:
            outcomes[name][way] = [search(table, way, seed) for seed in range(options.seeds)]
            if not options.json:
                print(f"{name}, {way}: {options.seeds} searches", file=sys.stderr, flush=True)
    tables = {name: summary(table) for name, table in outcomes.items()}
    if options.plot:
        draw(outcomes, options.plot)
    return {
        "seeds": options.seeds,
        "windows_to_target": {way: over_tables(tables, way, "windows") for way in ways},
        "seconds_to_target": {way: over_tables(tables, way, "seconds") for way in ways},
        "ratio": {way: over_tables(tables, way, "ratio") for way in ways if way != "ours" and "ours" in ways},
        "tables": tables,
    }


def search(table: Table, name: str, seed: int) -> Outcome:
    """One search on the simulated clock."""
    from searchers import way

    alone = name in ONE_AFTER_THE_OTHER
    workers = 1 if alone else WORKERS
    clock = Clock(way(name, table, seed, workers), table, workers, speed=WORKERS / workers)
    return judge(table, _until_judged(clock.run(), table))


def _until_judged(steps: Iterable[Step], table: Table) -> list[Step]:
    """The steps of a search for as long as there is something to learn from them."""
    taken, found, target, full = list[Step](), False, target_of(table), table.recipe.rungs[-1]
    for step in steps:
        taken.append(step)
        found |= step.score <= target and step.end == "complete"
        if step.windows >= (LOOKED_AT if found else AT_MOST) * full:
            break
    return taken


def target_of(table: Table) -> float:
    """The score that is near enough to the best known."""
    return table.best + WITHIN * abs(table.best)


def judge(table: Table, steps: Sequence[Step]) -> Outcome:
    """What came of a search's steps."""
    target, full = target_of(table), table.recipe.rungs[-1]
    last = steps[-1]
    first = next((step for step in steps if step.score <= target), None)
    exported = next((step for step in steps if step.score <= target and step.end == "complete"), None)
    within = [step for step in steps if step.windows <= LOOKED_AT * full]
    most = max(last.windows, AT_MOST * full)  # of a search that tried every point before, too
    return Outcome(
        windows=first.windows if first else most,
        seconds=first.seconds if first else last.seconds * most / last.windows,
        complete_windows=exported.windows if exported else most,
        found=first is not None,
        stopped_best=stopped_best(table, within),
        gaps=tuple(gap_after(table, within, budgets * full) for budgets in range(1, LOOKED_AT + 1)),
    )


def stopped_best(table: Table, steps: Sequence[Step]) -> bool:
    """Whether the best curve of those that were tried and ended was stopped each time that it was tried."""
    ends: dict[Hyperparameters, set[str]] = {}
    for step in steps:
        if step.end:
            ends.setdefault(step.point, set()).add(step.end)
    best = min(ends, key=lambda point: table.curves[point].best)
    return "complete" not in ends[best]


def gap_after(table: Table, steps: Sequence[Step], windows: float) -> float:
    """How far the best result within so many windows is above the best known; infinite while there is none."""
    scores = [step.score for step in steps if step.windows <= windows and math.isfinite(step.score)]
    return min(scores, default=math.inf) / table.best - 1


def summary(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, dict[str, Any]]:
    """Of each way on one table, over the seeds; beside it how ours compares, paired by seed."""
    found = {}
    for way, ones in outcomes.items():
        found[way] = {
            "windows": fmean(one.windows for one in ones),
            "seconds": fmean(one.seconds for one in ones),
            "complete_windows": fmean(one.complete_windows for one in ones),
            "found": fmean(one.found for one in ones),
            "stopped_best": fmean(one.stopped_best for one in ones),
            "gap": _finite(median(one.gaps[LOOKED_AT // 4 - 1] for one in ones)),
            "outcomes": [{**asdict(one), "gaps": [_finite(gap) for gap in one.gaps]} for one in ones],
        }
        if way != "ours" and "ours" in outcomes:
            found[way] |= compared(outcomes["ours"], ones)
    return found


def compared(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> dict[str, Any]:
    """Windows and seconds of ours to theirs: ratios of means, with 95% intervals of a bootstrap over paired seeds."""
    result: dict[str, Any] = {}
    for key, quantity in (("ratio", "windows"), ("seconds_ratio", "seconds"), ("complete_ratio", "complete_windows")):
        pairs = np.array([[getattr(one, quantity) for one in ones] for ones in (ours, theirs)])
        drawn = np.random.default_rng(0).integers(len(ours), size=(RESAMPLES, len(ours)))
        our_means, their_means = pairs[:, drawn].mean(axis=2)
        low, high = np.quantile(our_means / their_means, [0.025, 0.975])
        result[key] = float(pairs[0].mean() / pairs[1].mean())
        result[f"{key}_interval"] = [float(low), float(high)]
    return result


def over_tables(tables: Mapping[str, Mapping[str, Mapping[str, Any]]], way: str, key: str) -> float:
    """The geometric mean of a figure over the tables."""
    return math.exp(fmean(math.log(table[way][key]) for table in tables.values()))


def _finite(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if math.isfinite(value) else None


def print_tables(results: dict[str, Any]) -> None:
    """A line for each way on each table; ratios of ours to it, with their intervals."""
    for name, table in results["tables"].items():
        print(f"\n{name}: to within {WITHIN:.0%} of the best known, mean of {results['seeds']} searches")
        print(
            f"{'':<14}{'windows':>9}{'ours is':>22}{'seconds':>9}{'ours is':>22}"
            f"{'exported':>10}{'ours is':>22}{'found':>7}{'stops best':>12}{f'gap at {LOOKED_AT // 4}':>11}"
        )
        for way, one in table.items():
            gap = "-" if one["gap"] is None else f"{one['gap']:.2%}"
            print(
                f"{way:<14}{one['windows']:>9,.0f}{_ratio(one, 'ratio'):>22}{one['seconds']:>9,.0f}"
                f"{_ratio(one, 'seconds_ratio'):>22}{one['complete_windows']:>10,.0f}"
                f"{_ratio(one, 'complete_ratio'):>22}{one['found']:>7.0%}{one['stopped_best']:>12.0%}{gap:>11}"
            )


def _ratio(one: Mapping[str, Any], key: str) -> str:
    if key not in one:
        return ""
    low, high = one[f"{key}_interval"]
    return f"{one[key]:.2f} ({low:.2f} to {high:.2f})"


def draw(outcomes: Mapping[str, Mapping[str, Sequence[Outcome]]], file: Path) -> None:
    """Curves of the regret, the median over the seeds, as SVG or PNG.

    Raises:
        ChronotuneError: There is no matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ChronotuneError("--plot draws with matplotlib, which is not installed: pip install matplotlib") from error
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, (name, ways) in zip(figure.subplots(1, len(outcomes), squeeze=False)[0], outcomes.items(), strict=True):
        for way, ones in ways.items():
            gaps = np.median([one.gaps for one in ones], axis=0)
            axes.step(
                np.arange(1, LOOKED_AT + 1), 100 * gaps, where="post", label=way, lw=2.5 if way == "ours" else 1.2
            )
        axes.axhline(100 * WITHIN, color="grey", lw=0.8, ls=":")
        axes.set(title=name, xlabel="full budgets spent", ylabel="% above the best known", ylim=(0, 8))
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=sorted(CHANGES), default=sorted(CHANGES), help="which curves")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="which ways of searching")
    parser.add_argument("--seeds", type=int, default=30, help="searches of each way")
    parser.add_argument("--plot", type=Path, help="draw the regret into this SVG or PNG")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


if __name__ == "__main__":
    sys.exit(main())
