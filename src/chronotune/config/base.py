"""What every declaration shares: frozen, unknown keys refused, and a way to say which rules are broken."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Declaration(BaseModel):
    """Base of all types that people write in YAML: immutable, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
MAX_NAME = 80

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=MAX_NAME)]
"""A name that is safe as a folder, as a run name and on a command line."""


@dataclass(frozen=True)
class Breach:
    """A rule between several keys that does not hold."""

    key: tuple[str | int, ...]
    """The key to change, relative to the declaration that checks the rule."""
    rule: str
    """What must hold, and the value that breaks it; reads on after the key."""
    remedy: str
    """What to do next, a sentence without its full stop."""


class RulesError(ValueError):
    """Raised by validators; pydantic hands it on, and the loader turns each breach into a fault with its line."""

    def __init__(self, breaches: Iterable[Breach]) -> None:
        self.breaches = tuple(breaches)
        super().__init__("; ".join(f"{'.'.join(map(str, breach.key))} {breach.rule}" for breach in self.breaches))


def refuse(breaches: Iterable[Breach]) -> None:
    """Raise `RulesError` with all `breaches`; do nothing when there are none."""
    if found := tuple(breaches):
        raise RulesError(found)
