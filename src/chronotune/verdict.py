"""The verdict: ship the challenger, keep zero-shot, or there are not enough test windows to say."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from chronotune.metrics import without_nan
from chronotune.openings import Openings
from chronotune.significance import MIN_BLOCKS, Comparison

Decision: TypeAlias = Literal["ship the challenger", "keep zero-shot", "not enough test windows"]

WORTHWHILE = 0.1
"""Test windows that could not even show a gain of this size leave an open question open."""


@dataclass(frozen=True)
class Verdict:
    """One challenger and one setting of zero-shot, both chosen on validation, compared once on the test windows."""

    challenger: str
    zero_shot: str
    objective: str
    comparison: Comparison
    unit: str = "days"
    """What the comparison resampled: `days`, or `origins` of data in steps of a day or longer."""
    openings: Openings | None = None
    """How often the test segment has been opened; None where nobody counts."""

    @property
    def decision(self) -> Decision:
        """Ship when the whole 95% interval of the gain is above 0.

        There are not enough test windows when they hold fewer than `significance.MIN_BLOCKS` blocks, or when the
        interval holds 0 although not even a gain of WORTHWHILE could have been shown. Else zero-shot stays, also when
        a forecast or the gain is not finite.
        """
        it = self.comparison
        if not it.is_enough:
            return "not enough test windows"
        if it.low > 0:
            return "ship the challenger"
        return "not enough test windows" if it.high > 0 and it.smallest > WORTHWHILE else "keep zero-shot"

    @property
    def sentence(self) -> str:
        """The verdict for people, with the gain and its interval, what could have been shown, and the openings."""
        return f"{self._conclusion()}: {'; '.join([self._gain(), *self._details()])}"

    def _conclusion(self) -> str:
        match self.decision:
            case "ship the challenger":
                return f"ship {self.challenger}, it is better than {self.zero_shot}"
            case "keep zero-shot":
                worse = self.comparison.high < 0
                return f"keep {self.zero_shot}, {self.challenger} is {'worse' if worse else 'not shown to be better'}"
            case _:
                return f"not enough test windows to tell {self.challenger} from {self.zero_shot}"

    def _gain(self) -> str:
        it = self.comparison
        gain = f"gain in {self.objective} {_percent(it.gain)}"
        return gain if np.isnan(it.low) else f"{gain} (95% interval {_percent(it.low)} to {_percent(it.high)})"

    def _details(self) -> list[str]:
        it, details = self.comparison, []
        if not it.is_enough:
            details.append(f"{it.days} {self.unit} are {it.blocks} blocks of {it.block}, a verdict needs {MIN_BLOCKS}")
        elif np.isfinite(it.smallest):
            details.append(f"{it.days} test {self.unit} show a true gain of {it.smallest:.1%} four times in five")
        if it.by_series is not None:
            one = it.by_series
            details.append(f"{one.worse} of {one.series} series worse, {one.clearly_worse} clearly")
        if self.openings is not None and self.openings.most:
            luck = ", and every further look gives luck a chance" if self.openings.most > 1 else ""
            details.append(f"test segment {self.openings}{luck}")
        return details

    def as_dict(self) -> dict[str, Any]:
        """JSON values: the decision, the sentence, and all that they rest on; null for what is not finite."""
        mine = asdict(self)
        comparison, _ = mine.pop("comparison"), mine.pop("openings")
        mine |= (self.openings or Openings()).as_dict()
        decided = {"decision": self.decision, "sentence": self.sentence}
        return dict(without_nan({**decided, **mine, **comparison, "blocks": self.comparison.blocks}))


def _percent(value: float) -> str:
    return "unknown" if np.isnan(value) else f"{value:+.1%}"
