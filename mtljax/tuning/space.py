"""Spaces of settings: `learning_rate=loguniform(1e-4,1e-1)`, `balancer=choice(ew,uw)`.

The value of a field is text in which a distribution may stand for any part:
`optimizer=adamw:weight_decay=loguniform(1e-4,1)`. Options of a choice may contain distributions.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from mtljax.build import build
from mtljax.config.experiment import Experiment
from mtljax.config.overrides import Override, with_overrides
from mtljax.utils.registry import did_you_mean, split_arguments
from mtljax.utils.text import first_line, quoted

FLAG = "--space"
"""Flag of the command line, for messages."""
INCOMPARABLE = ("select", "data.source", "data.labels", "data.drop", "data.fold", "data.on_error")
"""Fields that change what the validation score means, so that its values cannot be compared."""
NUMBERS = {"uniform": float, "loguniform": float, "int": int}
"""Distribution of numbers -> their type."""
FORMS = "uniform(a,b), loguniform(a,b), int(a,b) or choice(a,b,...)"
"""Forms of distributions, for messages."""
CALL = re.compile(r"(?<![\w.])(uniform|loguniform|int|choice)\(")
"""Start of a distribution in text."""
ARGUMENT = re.compile(r"(\w+)['\"]?\s*[=:]\s*$")
"""Name of the argument before a distribution."""


class Suggester(Protocol):
    """Source of values, such as a trial of Optuna."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = ...) -> float:
        """Returns a number in low..high; with `log`, its logarithm is uniform."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Returns an integer in low..high, both included."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Returns one of the choices."""


@dataclasses.dataclass(frozen=True)
class Number:
    """Distribution of a number."""

    name: str
    """Name of the parameter."""
    kind: str
    """Key of `NUMBERS`."""
    low: float
    """Lower end of the range."""
    high: float
    """Upper end of the range."""

    def draw(self, suggest: Suggester) -> str:
        """Returns a value, as text with four significant digits."""
        if self.kind == "int":
            return str(suggest.suggest_int(self.name, int(self.low), int(self.high)))
        log = self.kind == "loguniform"
        value = suggest.suggest_float(self.name, self.low, self.high, log=log)
        text = f"{value:.4g}"
        return text if self.low <= float(text) <= self.high else repr(value)

    def corners(self) -> Iterator[str]:
        """Yields the ends of the range."""
        yield from (str(NUMBERS[self.kind](end)) for end in (self.low, self.high))

    def value_of(self, text: str) -> Any:
        """Returns the value of the parameter for a text; None if it is outside of the range."""
        try:
            value = NUMBERS[self.kind](text)
        except ValueError:
            return None
        return value if self.low <= value <= self.high else None


@dataclasses.dataclass(frozen=True)
class Choice:
    """Distribution of a choice between texts, which may contain distributions."""

    name: str
    """Name of the parameter."""
    options: tuple[str, ...]
    """Options as they were given, the values of the parameter."""
    templates: tuple["Template", ...]
    """Options in parsed form."""

    def draw(self, suggest: Suggester) -> str:
        """Returns an option."""
        option = suggest.suggest_categorical(self.name, self.options)
        return self.templates[self.options.index(option)].draw(suggest)

    def corners(self) -> Iterator[str]:
        """Yields each option, with the ends of the ranges in it."""
        yield from itertools.chain.from_iterable(t.corners() for t in self.templates)

    def value_of(self, text: str) -> Any:
        """Returns the option of a text without distributions; None if there is none."""
        return text if any(t.parts == (text,) for t in self.templates) else None


@dataclasses.dataclass(frozen=True)
class Template:
    """Text with distributions in it."""

    parts: tuple[str | Number | Choice, ...]
    """Literal text and distributions, in order."""

    def draw(self, suggest: Suggester) -> str:
        """Returns the text with drawn values."""
        return "".join(p if isinstance(p, str) else p.draw(suggest) for p in self.parts)

    def corners(self) -> Iterator[str]:
        """Yields texts with the ends of all ranges and each option."""
        options = [[part] if isinstance(part, str) else list(part.corners()) for part in self.parts]
        longest = max(map(len, options))
        for i in range(longest):  # one range at its end, or all: not their product
            yield "".join(values[min(i, len(values) - 1)] for values in options)

    def distributions(self) -> Iterator[Number | Choice]:
        """Yields all distributions, with those in options."""
        for part in self.parts:
            if not isinstance(part, str):
                yield part
            if isinstance(part, Choice):
                yield from itertools.chain.from_iterable(t.distributions() for t in part.templates)


@dataclasses.dataclass(frozen=True)
class Space:
    """Space of settings of an experiment."""

    texts: tuple[str, ...]
    """The space as it was given."""
    fields: Mapping[str, Template]
    """Dotted path of a field -> its values."""

    def draw(self, suggest: Suggester) -> list[Override]:
        """Returns a setting."""
        return [(field, template.draw(suggest)) for field, template in self.fields.items()]

    @property
    def distributions(self) -> list[Number | Choice]:
        """Distributions of all parameters."""
        return [part for template in self.fields.values() for part in template.distributions()]

    def parameters_of(self, experiment: Experiment) -> dict[str, Any] | None:
        """Returns the parameters at which the setting is that of the experiment, if there are."""
        parameters = {}
        for field, template in self.fields.items():
            value: Any = experiment
            for name in field.split("."):
                value = getattr(value, name)
            part = template.parts[0]
            if len(template.parts) > 1 or isinstance(part, str):
                return None
            parameter = part.value_of("none" if value is None else str(value))
            if parameter is None:
                return None
            parameters[part.name] = parameter
        return parameters


def parse_space(texts: Sequence[str], experiment: Experiment) -> Space:
    """Parses the texts of `--space`, `FIELD=DISTRIBUTION` each.

    Raises:
      ValueError: Invalid text, unknown field, or a value that the experiment cannot have.

    Example:
      >>> from mtljax.config import find_experiment
      >>> space = parse_space(["learning_rate=loguniform(1e-4,0.1)"], find_experiment("digits"))
      >>> space.fields["learning_rate"].parts
      (Number(name='learning_rate', kind='loguniform', low=0.0001, high=0.1),)
    """
    if not texts:
        raise ValueError(
            f"missing {FLAG} FIELD=DISTRIBUTION ..., such as learning_rate=loguniform(1e-4,1e-1); "
            f"distributions are {FORMS}"
        )
    fields: dict[str, Template] = {}
    for text in texts:
        field, equals, value = text.partition("=")
        field = field.strip().replace("-", "_")
        if not equals or not value.strip():
            raise ValueError(f"{FLAG} {quoted(text)} is not FIELD=DISTRIBUTION: {FORMS}")
        if field in fields:
            raise ValueError(f"{FLAG} has {field} twice; give each field once")
        if field in INCOMPARABLE:
            raise ValueError(
                f"{FLAG} cannot have {field}: validation scores with different values of it cannot "
                "be compared"
            )
        fields[field] = _template(value.strip(), field, field, text)
        if not list(fields[field].distributions()):
            called = re.match(r"\s*(\w+)\(", value)
            hint = did_you_mean(called[1], [*NUMBERS, "choice"]) if called else ""
            raise ValueError(f"{FLAG} {quoted(text)} has no distribution: {FORMS}{hint}")
    space = Space(tuple(texts), fields)
    names = [distribution.name for distribution in space.distributions]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{FLAG} has two distributions for {name}; write one of them")
    _check_values(space, experiment)
    return space


def _check_values(space: Space, experiment: Experiment) -> None:
    """Checks the ends of all ranges and all options, field by field."""
    for field, template in space.fields.items():
        for text in dict.fromkeys(template.corners()):
            try:
                build(with_overrides(experiment, [(field, text)], FLAG))
            except ValueError as error:
                message = first_line(error).removeprefix(f"{FLAG}: ")
                raise ValueError(f"{FLAG} {field}={text}: {message}") from None


def _template(text: str, field: str, prefix: str, given: str) -> Template:
    """Parses text with distributions; the names of parameters start with `prefix`."""
    parts: list[str | Number | Choice] = []
    literal = ""
    while match := CALL.search(text):
        arguments, rest = _arguments(text[match.end() :], given)
        literal += text[: match.start()]
        name = prefix
        if literal or rest.strip() or parts:
            argument = ARGUMENT.search(literal)
            if argument is None:
                raise ValueError(
                    f"{FLAG} {quoted(given)}: write ARGUMENT={match[1]}(...) for a part of a value"
                )
            head = re.match(r"\w*", "".join(p for p in [*parts, literal] if isinstance(p, str)))
            words = [prefix, head[0] if head else "", argument[1]]
            name = ":".join(word for word in dict.fromkeys(words) if word)
        parts += [literal] if literal else []
        parts.append(_distribution(match[1], arguments, field, name, given))
        literal, text = "", rest
    literal += text
    return Template((*parts, literal) if literal or not parts else tuple(parts))


def _arguments(text: str, given: str) -> tuple[list[str], str]:
    """Splits `a,b)rest` into the arguments and the rest."""
    depth = 1
    for i, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return [part.strip() for part in split_arguments(text[:i])], text[i + 1 :]
    raise ValueError(f"{FLAG} {quoted(given)}: a parenthesis is not closed")


def _distribution(
    kind: str, arguments: Sequence[str], field: str, name: str, given: str
) -> Number | Choice:
    where = f"{FLAG} {quoted(given)}"
    if kind == "choice":
        if len(arguments) < 2 or len(set(arguments)) < len(arguments):
            raise ValueError(f"{where}: choice needs at least two different values")
        return Choice(
            name, tuple(arguments), tuple(_template(a, field, name, given) for a in arguments)
        )
    try:
        low, high = (NUMBERS[kind](argument) for argument in arguments)
    except ValueError:
        numbers = "integers" if kind == "int" else "numbers"
        raise ValueError(f"{where}: {kind} needs two {numbers}, {kind}(low,high)") from None
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"{where}: {kind}({low},{high}) is not a range: low must be below high")
    if kind == "loguniform" and low <= 0:
        raise ValueError(f"{where}: loguniform needs numbers > 0, not {low}")
    return Number(name, kind, low, high)
