"""Rules for the values of settings: written beside a field's type, checked alike for flags, config files and code."""

import math
import re
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Annotated, Any, TypeAlias, TypeVar, get_args, get_type_hints

from cyclopts import Group, Parameter, Token

from dali_fixres.errors import ConfigError
from pipelines.plan.views import parse_views
from pipelines.resolution import Resolution, parse_ratios, parse_resolutions

__all__ = [
    "Count",
    "CropRatios",
    "Fraction",
    "NonNegative",
    "Parsed",
    "Pixels",
    "PixelsList",
    "Positive",
    "Rule",
    "Seed",
    "Settings",
    "Share",
    "Strength",
    "Views",
    "Whole",
    "between",
    "field_names",
    "flag_of",
    "given_flags",
    "help_group",
    "with_flags",
]

T = TypeVar("T")

PARAMETERS = {
    "batch_size": "--batch-size",
    "layout": "--layout",
    "max_side=None": "--no-full",
    "num_processes": "--workers",
    "quality": "--quality",
    "repeats": "--aug-repeats",
    "sides": "--sizes",
    "strict": "--strict",
    "val_fraction": "--val-fraction",
}
"""Flags of the parameters that messages of `pipelines` name."""

_PARAMETER = re.compile(rf"`({'|'.join(PARAMETERS)})(?:=([^`]+))?`")


@dataclass(frozen=True)
class Rule:
    """What a value must be, in words and as a test; of a tuple each value."""

    text: str
    holds: Callable[[Any], bool]

    def check(self, flag: str, value: Any) -> None:
        """Raise ConfigError, with the flag, the rule and the value, unless the rule holds."""
        if not all(map(self.holds, value if isinstance(value, tuple) else (value,))):
            raise ConfigError(f"{flag} must be {self.text}; found {value!r}")


@dataclass(frozen=True)
class Parsed:
    """A value that a function can read; the function raises ConfigError for others."""

    parse: Callable[[Any], object]

    def check(self, flag: str, value: Any) -> None:
        """Raise the function's ConfigError, with the flag."""
        with flag_context(flag):
            self.parse(value)


def between(low: float, high: float) -> Rule:
    """Return the rule for numbers from `low` to `high`, both allowed."""
    return Rule(f"from {low} to {high}", lambda value: low <= value <= high)


def help_group(title: str, place: int) -> Callable[[type[T]], type[T]]:
    """Decorate a class of settings: --help shows its own fields under a title, titles in the order of their place."""
    group = Parameter(group=Group(title, sort_key=place))

    def decorate(settings: type[T]) -> type[T]:
        hints = settings.__annotations__
        settings.__annotations__ = {name: Annotated[hint, group] for name, hint in hints.items()}
        return settings

    return decorate


def _whole_or_text(_: object, tokens: Sequence[Token]) -> int | str:
    """Read a whole number; leave other text to the rule, where cyclopts would round 2.5 to 2."""
    text = tokens[0].value
    return int(text) if text.removeprefix("-").isdecimal() else text


_WHOLE = Rule("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool))

Whole: TypeAlias = Annotated[int, Parameter(converter=_whole_or_text), _WHOLE]
Count: TypeAlias = Annotated[Whole, Rule("at least 1", lambda value: value >= 1)]
Seed: TypeAlias = Annotated[Whole, Rule("from 0 to 2^63 - 1", lambda value: 0 <= value < 2**63)]
Pixels: TypeAlias = Annotated[Whole, Parsed(Resolution)]

Positive: TypeAlias = Annotated[float, Rule("above 0", lambda value: 0 < value < math.inf)]
NonNegative: TypeAlias = Annotated[float, Rule("at least 0", lambda value: 0 <= value < math.inf)]
Fraction: TypeAlias = Annotated[float, Rule("above 0 and at most 1", lambda value: 0 < value <= 1)]
Share: TypeAlias = Annotated[float, Rule("from 0 to below 1", lambda value: 0 <= value < 1)]
Strength: TypeAlias = Annotated[float, between(0, 1)]

PixelsList: TypeAlias = Annotated[str, Parsed(parse_resolutions)]
CropRatios: TypeAlias = Annotated[str, Parsed(parse_ratios)]
Views: TypeAlias = Annotated[str, Parsed(parse_views)]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all dataclasses of settings: checks each field by the rules in its type, unless it is None."""

    def __post_init__(self) -> None:
        """Raise ConfigError for the first field whose value breaks a rule."""
        for name, rules in _rules(type(self)).items():
            value = getattr(self, name)
            if value is not None:
                for rule in rules:
                    rule.check(flag_of(name), value)


def _rules(settings: type[Settings]) -> dict[str, list[Rule | Parsed]]:
    """Return the rules of each field."""
    hints = get_type_hints(settings, include_extras=True)
    return {field.name: list(_rules_in(hints[field.name])) for field in fields(settings)}


def _rules_in(hint: Any) -> Iterator[Rule | Parsed]:
    """Yield the rules in a type or a part of one, as in ``Annotated[int, Rule(...)] | None``."""
    if isinstance(hint, Rule | Parsed):
        yield hint
    for part in get_args(hint):
        yield from _rules_in(part)


def flag_of(name: str, value: object = None) -> str:
    """Return the flag that sets a field, to a value."""
    return f"--{'no-' if value is False else ''}{name.replace('_', '-')}"


def field_names(settings: type[Settings]) -> set[str]:
    """Return the names of a class's fields."""
    return {field.name for field in fields(settings)}


def given_flags(settings: Settings, names: Container[str]) -> list[str]:
    """Return the flags of the fields among `names` that have other values than their defaults."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings) if field.name in names}
    default = {field.name: field.default for field in fields(settings)}
    return [flag_of(name, value) for name, value in values.items() if value != default[name]]


@contextmanager
def flag_context(flag: str) -> Iterator[None]:
    """Name the flag in a ConfigError that does not name it yet."""
    try:
        yield
    except ConfigError as error:
        raise error if flag in str(error) else ConfigError(f"{flag}: {error}") from error


def with_flags(message: str) -> str:
    """Return a message of `pipelines` with flags in place of the parameters that it names in backticks."""
    return _PARAMETER.sub(lambda found: " ".join(filter(None, (PARAMETERS[found[1]], found[2]))), message)
