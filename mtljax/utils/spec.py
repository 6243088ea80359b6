"""Text form of a factory call, `cagrad:c=0.4`: the inverse of `mtljax.utils.registry.choose`.

A call with a recorded argument is written after it, `cagrad:c=0.4@every:period=10`, and one with
several is written as their chain, `uw+cagrad`; `mtljax.config.balancers` reads both.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable


@runtime_checkable
class Recorded(Protocol):
    """Record of a factory call, with the factory's name in its registry."""

    @property
    def name(self) -> str:
        """Key in the registry."""

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Arguments that were passed; an argument may itself be `Recorded`."""


class Spec(NamedTuple):
    """The simplest `Recorded`."""

    name: str
    """Name of the function."""
    arguments: Mapping[str, Any]
    """Arguments of the call."""


def to_text(spec: Recorded) -> str:
    """Writes a spec as on the command line; raises ValueError for an argument without text form.

    Example:
      >>> to_text(Spec("every", {"balancer": Spec("cagrad", {"c": 0.4}), "period": 10}))
      'cagrad:c=0.4@every:period=10'
    """
    parts, inner = [], ""
    for key, value in spec.arguments.items():
        if chained := _chained(value):
            return "+".join(map(_operand, chained))
        if isinstance(value, Recorded):
            inner = f"{_operand(value)}@"
            continue
        try:
            parts.append(f"{key}={_value_text(value)}")
        except TypeError as error:
            raise ValueError(f"{spec.name}: {key} cannot be written as text: {error}") from None
    return inner + ":".join([spec.name, ",".join(parts)] if parts else [spec.name])


def _chained(value: Any) -> Sequence[Recorded]:
    is_chain = isinstance(value, tuple) and all(isinstance(item, Recorded) for item in value)
    return value if is_chain and not isinstance(value, Recorded) else ()


def _operand(spec: Recorded) -> str:
    """Text of a spec next to `+` or `@`, in parentheses if it is a chain."""
    return f"({to_text(spec)})" if any(map(_chained, spec.arguments.values())) else to_text(spec)


def _value_text(value: Any, nested: bool = False) -> str:
    if hasattr(value, "tolist"):  # NumPy and JAX
        value = value.tolist()
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_][\w.+-]*", value) and value.lower() not in CONSTANTS
        return value if plain and not nested else _quoted(value)
    if isinstance(value, list | tuple):
        items = ",".join(_value_text(item, nested=True) for item in value)
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value} is not finite")
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    raise TypeError(f"{value!r} is neither a number, a string, a sequence of these nor None")


def _quoted(value: str) -> str:
    """Writes a string literal without quotes inside, at which `choose` would split."""
    text = value.replace("\\", "\\\\").replace("'", "\\x27")
    plain = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"'{''.join(plain)}'"


CONSTANTS = ("true", "false", "none")
"""Words that `choose` reads as constants, not as strings."""
