"""Search spaces: what may vary, and one point of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, PositiveInt, model_validator
from pydantic.config import JsonDict

from chronotune.config.base import Breach, Declaration, refuse

Scalar: TypeAlias = bool | int | float | str
Mode: TypeAlias = Literal["full", "lora"]
When: TypeAlias = dict[str, Scalar | list[Scalar]]


def _type_is_required(schema: JsonDict) -> None:
    """In YAML the type tells the kinds of parameter apart, so it has no default there."""
    required = schema.setdefault("required", [])
    assert isinstance(required, list)
    required.insert(0, "type")


class Parameter(Declaration, json_schema_extra=_type_is_required):
    """What all kinds of parameter share."""

    when: When = Field(
        default_factory=dict,
        description="Only searched when these other parameters have these values, e.g. {mode: lora}.",
    )

    def applies(self, chosen: dict[str, Any]) -> bool:
        """Whether every condition holds for the values `chosen` so far."""
        return all(
            chosen.get(name) in (wanted if isinstance(wanted, list) else [wanted]) for name, wanted in self.when.items()
        )


class FloatRange(Parameter):
    """A real number between `low` and `high`, both included."""

    type: Literal["float"] = "float"
    low: float = Field(description="Smallest value.")
    high: float = Field(description="Largest value.")
    log: bool = Field(False, description="Sample the exponent evenly; for learning rates.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        refuse([*_disorder(self.low, self.high), *_log_from_zero(self.low, self.log)])
        return self


class IntRange(Parameter):
    """A whole number between `low` and `high`, both included."""

    type: Literal["int"] = "int"
    low: int = Field(description="Smallest value.")
    high: int = Field(description="Largest value.")
    step: PositiveInt = Field(1, description="Distance between neighbouring values.")
    log: bool = Field(False, description="Sample the exponent evenly; excludes step.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        refuse([*_disorder(self.low, self.high), *_log_from_zero(self.low, self.log), *_bad_steps(self)])
        return self


def _disorder(low: float, high: float) -> Iterator[Breach]:
    if low > high:
        yield Breach(("low",), f"must not exceed high, but {low} > {high}", "Swap them")


def _log_from_zero(low: float, log: bool) -> Iterator[Breach]:
    if log and low <= 0:
        yield Breach(("low",), f"must be above 0 in a log range, but is {low}", "Raise it, or set log: false")


def _bad_steps(whole: IntRange) -> Iterator[Breach]:
    if whole.log and whole.step != 1:
        yield Breach(("step",), f"excludes log, but is {whole.step}", "Remove one of the two")
    if (width := whole.high - whole.low) % whole.step:
        yield Breach(("step",), f"must divide high - low, but {whole.step} does not divide {width}", "Change high")


class Choice(Parameter):
    """One of the listed values."""

    type: Literal["choice"] = "choice"
    values: list[Scalar] = Field(min_length=1, description="The values to choose from.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(map(repr, self.values))) != len(self.values):
            shown = ", ".join(map(str, self.values))
            refuse([Breach(("values",), f"must differ from each other, but are {shown}", "Remove the repeated one")])
        return self


class Fixed(Parameter):
    """One value, not searched. In YAML a bare scalar means the same."""

    type: Literal["fixed"] = "fixed"
    value: Scalar = Field(description="The value.")


def _bare_scalar_is_fixed(raw: object) -> object:
    return {"type": "fixed", "value": raw} if isinstance(raw, bool | int | float | str) else raw


AnyParameter: TypeAlias = Annotated[FloatRange | IntRange | Choice | Fixed, Field(discriminator="type")]
Slot: TypeAlias = Annotated[
    AnyParameter, BeforeValidator(_bare_scalar_is_fixed, json_schema_input_type=AnyParameter | Scalar)
]


class Hyperparameters(Declaration):
    """One point of a search space: everything that distinguishes one fine-tuning run from another."""

    learning_rate: float = Field(gt=0)
    windows: PositiveInt
    accumulation: PositiveInt
    context_length: PositiveInt
    covariates: str
    mode: Mode
    lora_rank: PositiveInt | None = None

    @property
    def effective_batch(self) -> int:
        """Windows per optimizer step."""
        return self.windows * self.accumulation


class SearchSpace(Declaration):
    """What may vary between trials. Each entry is a range, a choice, or a fixed value."""

    name: str = Field("inline", description="For display.")
    learning_rate: Slot = Field(description="Peak learning rate of AdamW; decays linearly to 0 over the full budget.")
    windows: Slot = Field(description="Batch size in windows (not rows: covariates do not count).")
    accumulation: Slot = Field(Fixed(value=1), description="Gradient accumulation: batches per optimizer step.")
    context_length: Slot = Field(description="Past steps that the model sees, at training and at inference.")
    covariates: Slot = Field(
        Fixed(value="none"),
        description="A covariate set: none, known, all, or a name from the recipe's data.covariate_sets.",
    )
    mode: Slot = Field(Fixed(value="full"), description="full: all weights; lora: low-rank adapters.")
    lora_rank: Slot = Field(
        Fixed(value=8, when={"mode": "lora"}), description="Rank of the adapters (alpha is twice the rank)."
    )

    @property
    def parameters(self) -> dict[str, FloatRange | IntRange | Choice | Fixed]:
        """The entries by name, unconditional ones first, in declaration order."""
        entries = {name: getattr(self, name) for name in Hyperparameters.model_fields}
        return dict(sorted(entries.items(), key=lambda entry: bool(entry[1].when)))

    @model_validator(mode="after")
    def _conditions_and_values_make_sense(self) -> Self:
        refuse([*_bad_conditions(self.parameters), *_bad_values(self.parameters)])
        return self

    def collapse(self, point: Hyperparameters) -> SearchSpace:
        """The space that holds only `point`: what an exported recipe carries."""
        fixed = {name: Fixed(value=value) for name, value in point.model_dump(exclude_none=True).items()}
        return SearchSpace(name=self.name, **fixed)


def extremes(parameter: FloatRange | IntRange | Choice | Fixed) -> list[Any]:
    """The values that bound a parameter: its ends, or all of its choices."""
    match parameter:
        case FloatRange() | IntRange():
            return [parameter.low, parameter.high]
        case Choice():
            return list(parameter.values)
        case Fixed():
            return [parameter.value]


def _bad_conditions(entries: dict[str, FloatRange | IntRange | Choice | Fixed]) -> Iterator[Breach]:
    for name, parameter in entries.items():
        if parameter.when and name != "lora_rank":
            yield Breach((name, "when"), "is for lora_rank only: every trial needs the others", "Remove it")
            continue
        for other in parameter.when:
            if other == name or other not in entries:
                rule = f"must name another parameter of the space, but names {other!r}"
                yield Breach((name, "when"), rule, "Use {mode: lora}")


def _bad_values(entries: dict[str, FloatRange | IntRange | Choice | Fixed]) -> Iterator[Breach]:
    for name, parameter in entries.items():
        domain = _DOMAINS.get(name, "a whole number of at least 1")
        if bad := [value for value in extremes(parameter) if not _usable(name, value)]:
            rule = f"must be {domain}, but reaches {', '.join(map(str, bad))}"
            yield Breach((name,), rule, "For whole numbers use type: int" if _float_for_int(name, bad) else "Change it")


_DOMAINS = {"mode": "full or lora", "covariates": "the name of a covariate set", "learning_rate": "a number above 0"}


def _float_for_int(name: str, bad: list[Any]) -> bool:
    return name not in _DOMAINS and all(isinstance(value, float) for value in bad)


def _usable(name: str, value: object) -> bool:
    """Whether `value` is in the domain of hyperparameter `name`."""
    match name:
        case "mode":
            return value in ("full", "lora")
        case "covariates":
            return isinstance(value, str)
        case "learning_rate":
            return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
        case _:
            return isinstance(value, int) and not isinstance(value, bool) and value >= 1
