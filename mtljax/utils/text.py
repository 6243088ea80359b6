"""Text formatting."""

import contextlib
import math
from collections.abc import Iterator, Sequence


def number(value: float | None, digits: int = 3) -> str:
    """Formats a number with at least `digits` significant digits; n/a for NaN."""
    if value is None or math.isnan(value):
        return "n/a"
    if abs(value) >= 10**digits and math.isfinite(value):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def joined(parts: Sequence[str]) -> str:
    """Joins words: `a, b and c`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or its type, in 200 characters at most."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def count(amount: int, noun: str) -> str:
    """Formats a count: `1 image`, `2 images`."""
    return f"{amount:,} {noun}" if amount == 1 else f"{amount:,} {noun}s"


@contextlib.contextmanager
def error_prefix(place: object) -> Iterator[None]:
    """Context that puts `place` in front of the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
