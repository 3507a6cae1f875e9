"""Two ways to do the same, measured in one run: first one, then the other, again and again.

A machine that slows down in between slows both, so their ratio stays; a single slow round does not move a median.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

ROUNDS = 5
"""The fewest that a figure is taken from."""


@dataclass(frozen=True)
class Pair:
    """Medians of both ways."""

    ours: float
    """Seconds."""
    theirs: float
    """Seconds."""
    rounds: int

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Pair:
        """From the seconds of each round."""
        assert len(ours) == len(theirs), (len(ours), len(theirs))
        return cls(median(ours), median(theirs), len(ours))

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.theirs / self.ours


def alternate(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> Pair:
    """Time both in turn; one round before the first is not counted."""
    ours(), theirs()
    times = [(timed(ours), timed(theirs)) for _ in range(rounds)]
    return Pair.of([one for one, _ in times], [other for _, other in times])


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def print_pair(name: str, pair: Pair) -> None:
    """One line of a table."""
    print(f"{name:<38}{pair.ours * 1e3:>11.1f}{pair.theirs * 1e3:>13.1f}{pair.ratio:>8.2f}x", flush=True)


def print_header(title: str) -> None:
    """The line above those of `print_pair`."""
    print(f"\n{title:<38}{'ours, ms':>11}{'library, ms':>13}{'ratio':>9}")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
