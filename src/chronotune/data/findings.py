"""What a check of the data found: errors that stop, warnings that do not, each with rows and a remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import polars as pl

from chronotune.errors import Fault, InputError

Level: TypeAlias = Literal["error", "warning"]

SHOWN = 3
"""Row numbers and series names that are written out; the rest is counted."""


@dataclass(frozen=True)
class Finding:
    """One broken rule, once for all rows and series that break it."""

    level: Level
    column: str
    """The column, or the recipe's dotted key; empty when the file as a whole is meant."""
    rule: str
    """What must hold, and the value that breaks it."""
    remedy: str
    rows: tuple[int, ...] = ()
    """All rows that break it, counting the file's data rows from 1 (the header does not count)."""
    series: tuple[str, ...] = ()
    """Series of a panel that break it; empty when there is one series or the rule is about all of them."""

    def fault(self, where: str) -> Fault:
        """The same as a fault in the file `where`."""
        series = f" (series {listed(self.series)})" if self.series else ""
        return Fault(at_rows(where, self.rows), self.column, self.rule + series, self.remedy)


@dataclass(frozen=True)
class Report:
    """All findings of one check."""

    where: str
    """The file, or the name of the built-in source."""
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that must be mended before a sweep."""
        return tuple(finding for finding in self.findings if finding.level == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that are worth a look and change nothing."""
        return tuple(finding for finding in self.findings if finding.level == "warning")

    def lines(self, level: Level) -> list[str]:
        """One line for each finding of this level."""
        return [str(finding.fault(self.where)) for finding in self.findings if finding.level == level]

    def extended(self, findings: Iterable[Finding]) -> Report:
        """The same report with more findings."""
        return Report(self.where, (*self.findings, *findings))

    def raise_for_errors(self) -> None:
        """Raise InputError with all errors at once, if there are any."""
        if self.errors:
            raise InputError([finding.fault(self.where) for finding in self.errors])


def listed(items: Sequence[object]) -> str:
    """The first few items, and how many there are beyond: `3, 9, 10 and 41 more`."""
    shown = ", ".join(map(str, items[:SHOWN]))
    return shown if len(items) <= SHOWN else f"{shown} and {len(items) - SHOWN:,} more"


def at_rows(where: str, rows: Sequence[int]) -> str:
    """The file with row numbers behind it: `load.csv rows 3, 9`."""
    return f"{where} {'rows' if len(rows) > 1 else 'row'} {listed(rows)}" if rows else where


def positions(mask: pl.Series) -> list[int]:
    """File row numbers, counted from 1, where a mask over all rows holds."""
    return [row + 1 for row in mask.arg_true()]
