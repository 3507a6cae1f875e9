"""Time and memory of the training engine, beside `Chronos2Pipeline.fit` of chronos-forecasting.

    python benchmarks/engine.py                    everything, model tiny on steel: a table
    python benchmarks/engine.py --json             one JSON object
    python benchmarks/engine.py --only steps       one part: steps, whole, batches, outside, reuse or memory
    python benchmarks/engine.py --quick            the smallest shapes: to see that it runs, not for figures

What is compared with what: README.md beside this file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import memory_steps
from command import carry_out
from readers import steel_measurements
from sidebyside import ROUNDS, Pair, print_header, print_pair, threads

from chronotune.config.load import load_model

if TYPE_CHECKING:
    from chronos.chronos2.model import Chronos2Model

    from chronotune.data.panel import Panel

TRAINING_STEPS = 28_032
"""The first four fifths of the steel data."""


class Sizes(NamedTuple):
    """What is measured: windows, rows and context lengths."""

    windows: tuple[int, ...]
    rows: tuple[int, ...]
    contexts: tuple[int, ...]
    whole: tuple[tuple[int, int, int], int]
    """The batch and the steps of a whole training."""
    batch: tuple[tuple[int, int, int], int]
    """Making batches of one long series, and its length."""
    outside: tuple[tuple[int, int, int], ...]
    core: str
    """Shape of the random model."""


FULL = Sizes(
    windows=(8, 32, 64),
    rows=(1, 10),
    contexts=(512, 1024),
    whole=((8, 10, 512), 20),
    batch=((26, 10, 512), 350_400),
    outside=((8, 1, 512), (8, 10, 512), (32, 10, 512)),
    core="120m",
)
QUICK = Sizes((2,), (1, 10), (64,), ((2, 10, 64), 2), ((2, 10, 64), 4_000), ((2, 10, 64),), "small")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code."""
    options = _options().parse_args(arguments)
    with threads(options.threads):
        return carry_out(options, lambda: benchmark(options), lambda results: None)  # printed part by part


def benchmark(options: argparse.Namespace) -> dict[str, Any]:
    """The parts that were asked for, each printed when it is there unless `options.json`.

    Returns:
        What `--json` prints. Ratios are the library's time over ours, times are seconds, memory is in bytes.
    """
    job = _Job(QUICK if options.quick else FULL, options)
    results: dict[str, Any] = {"model": options.model, "threads": options.threads, "rounds": options.rounds}
    for part in PARTS:
        if part in (options.only or PARTS):
            results |= PARTS[part](job)
    return results


class _Job:
    """What a part of the benchmark works on; model and series are loaded for the parts that need them."""

    def __init__(self, sizes: Sizes, options: argparse.Namespace) -> None:
        self.sizes, self.options = sizes, options

    @cached_property
    def model(self) -> Chronos2Model:
        from chronotune.forecaster import load_model as load_weights

        return load_weights(load_model(self.options.model))

    @cached_property
    def panel(self) -> Panel:
        return steel_measurements().until(TRAINING_STEPS)

    def say(self, name: str, pair: Pair) -> None:
        if not self.options.json:
            print_pair(name, pair)

    def header(self, title: str) -> None:
        if not self.options.json:
            print_header(title)

    def line(self, text: str) -> None:
        if not self.options.json:
            print(text, flush=True)


def _steps(job: _Job) -> dict[str, Any]:
    """Optimizer steps in a steady state, for every size."""
    from against_fit import Shape, steps

    job.header("an optimizer step")
    pairs: dict[str, Pair] = {}
    for rows, context, windows in product(job.sizes.rows, job.sizes.contexts, job.sizes.windows):
        shape = Shape(windows, rows, context)
        pairs[str(shape)] = steps(job.model, job.panel, shape, job.options.rounds)
        job.say(f"{windows} windows x {rows} rows, C={context}", pairs[str(shape)])
    return {
        "train_ratio": {name: pair.ratio for name, pair in pairs.items()},
        "train_seconds": {name: {"ours": pair.ours, "library": pair.theirs} for name, pair in pairs.items()},
    }


def _whole(job: _Job) -> dict[str, Any]:
    """From the call to the written weights."""
    from against_fit import Shape, end_to_end

    size, count = job.sizes.whole
    pair = end_to_end(job.model, job.panel, shape := Shape(*size), count, job.options.rounds)
    job.header("from the call to written weights")
    job.say(f"{count} steps of {shape}", pair)
    return {"end_to_end": {"shape": str(shape), "steps": count, **_as_json(pair)}}


def _batches(job: _Job) -> dict[str, Any]:
    """Batches of one long series, and what they are of a whole step."""
    from against_fit import Shape, batches, long_panel, steps

    size, length = job.sizes.batch
    panel, shape = long_panel(length, size[1] - 1), Shape(*size)
    making = batches(job.model, panel, shape, job.options.rounds)
    step = steps(job.model, panel, shape, job.options.rounds)
    shares = {"ours": making.ours / step.ours, "library": making.theirs / step.theirs}
    job.header(f"one series of {length:,} x {size[1]}")
    job.say(f"a batch, {shape}", making)
    job.say("the whole step with it", step)
    job.line(f"the batch is {shares['ours']:.2%} of our step, and {shares['library']:.1%} of the library's")
    about = {"shape": str(shape), "length": length}
    return {"dataset": {**about, **_as_json(making), "share_of_step": shares, "step": _as_json(step)}}


def _outside(job: _Job) -> dict[str, Any]:
    """What of a step is no computing of the model."""
    from against_fit import Shape
    from anatomy import outside_share

    shares = {}
    for size in job.sizes.outside:
        shape = Shape(*size)
        shares[str(shape)] = outside_share(job.model, job.panel, shape, job.options.rounds)
        job.line(f"\noutside forward, backward and optimizer, {shape}: {shares[str(shape)]:.2%} of a step")
    return {"outside_share": max(shares.values()), "outside_shares": shares}


def _reuse(job: _Job) -> dict[str, Any]:
    """A worker takes its next trial."""
    from anatomy import reuse

    times = reuse(job.options.model, job.options.rounds)
    job.line(
        f"\na used worker is assigned a trial: first batch after {times['before_first_step']:.3f} s, "
        f"first optimizer step done after {times['seconds']:.3f} s"
    )
    return {"reuse": times}


def _memory(job: _Job) -> dict[str, Any]:
    """Peaks, predicted and measured."""
    found = memory_steps.measure(job.sizes.core)
    if "skipped" in found:
        job.line(f"\nmemory is not measured: {found['skipped']}")
        return {"memory": found}
    job.line(f"\ntwo optimizer steps, random model {found['core']}, {found['windows']} windows x {found['rows']} rows")
    for mode in ("full", "lora"):
        job.line(_told(mode, found[mode]))
        for how in ("told", "enforced"):
            if how in found[mode]:
                job.line(_told(f"{mode}, limit of {found[mode]['limit'] / 1e9:.2f} GB {how}", found[mode][how]))
    return {"memory": found}


def _told(name: str, one: dict[str, Any]) -> str:
    if "failed" in one:
        return f"{name:<38}failed: {one['failed']}"
    predicted = f"{one['predicted'] / 1e9:>6.2f} GB predicted, " if "predicted" in one else ""
    splits = "".join(f", {windows} at once from step {step} on" for step, windows in one["splits"] or ())
    return f"{name:<38}{predicted}{one['measured'] / 1e9:>6.2f} GB measured{splits}"


def _as_json(pair: Pair) -> dict[str, float]:
    return {"ratio": pair.ratio, "seconds_ours": pair.ours, "seconds_library": pair.theirs}


PARTS: dict[str, Callable[[_Job], dict[str, Any]]] = {
    "steps": _steps,
    "whole": _whole,
    "batches": _batches,
    "outside": _outside,
    "reuse": _reuse,
    "memory": _memory,
}


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="name or path of a model preset")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help="only these parts")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each is measured; the median counts")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch, the same for both")
    parser.add_argument("--quick", action="store_true", help="the smallest shapes, no figures to quote")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return parser


if __name__ == "__main__":
    sys.exit(main())
