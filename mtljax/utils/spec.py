"""Text form of a factory call, `cagrad:c=0.4`: the inverse of `mtljax.utils.registry.choose`."""

import math
import re
from collections.abc import Mapping
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
    arguments: Mapping[str, Any]


def to_text(spec: Recorded) -> str:
    """Writes a spec as on the command line; raises ValueError for an argument without text form.

    Example:
      >>> to_text(Spec("cr_mogm", {"balancer": Spec("cagrad", {"c": 0.4}), "smoothing": 0.5}))
      "cr_mogm:balancer='cagrad:c=0.4',smoothing=0.5"
    """
    parts = []
    for key, value in spec.arguments.items():
        try:
            parts.append(f"{key}={_value_text(value)}")
        except TypeError as error:
            raise ValueError(f"{spec.name}: {key} cannot be written as text: {error}") from None
    return ":".join([spec.name, ",".join(parts)] if parts else [spec.name])


def _value_text(value: Any, nested: bool = False) -> str:
    if isinstance(value, Recorded):
        value = to_text(value)
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
