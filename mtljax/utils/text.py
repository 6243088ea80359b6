"""Text formatting and normal forms."""

import contextlib
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

OUTER_SPACE = re.compile("^[\\s\ufeff\u200b\u2060]+|[\\s\ufeff\u200b\u2060]+$")
"""White space, byte order marks and spaces without width, at the ends of a text."""


def normalized(text: str) -> str:
    """Returns a text without outer white space, in Unicode normal form C."""
    return unicodedata.normalize("NFC", OUTER_SPACE.sub("", text))


def printable(text: str) -> str:
    """Returns a text in one line, with escape sequences for characters that cannot be printed."""
    line = " ".join(text.split())
    return (
        line
        if line.isprintable()
        else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    )


def shortened(text: str, length: int = 60) -> str:
    """Returns a text in one line of at most `length` printable characters."""
    line = printable(text[: 4 * length])
    return line if len(line) <= length else line[: length - 3] + "..."


def listed(names: Iterable[str], length: int = 300) -> str:
    """Returns names in one line of about `length` printable characters; the last ones as "..."."""
    parts: list[str] = []
    for name in names:
        parts.append(shortened(name, 40))
        length -= len(parts[-1]) + 2
        if length < 0:
            parts[-1] = "..."
            break
    return ", ".join(parts)


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


def quoted(value: object) -> str:
    """Returns the start of a value's `repr`, for messages about the content of a file."""
    return shortened(repr(value[: 10**3] if isinstance(value, str | list) else value))


def form(array: Any) -> str:
    """Returns the shape and the type of an array; a type may have names from a file."""
    return f"shape {array.shape} and type {shortened(str(array.dtype))}"


def first_line(error: BaseException) -> str:
    """Returns the first line of a library's error, or its type, in 200 characters at most.

    Messages of libraries may repeat the content of a file.
    """
    return shortened((str(error).strip().splitlines() or [type(error).__name__])[0], 200)


def one_line(error: BaseException) -> str:
    """Returns the message of an exception in one line, or its type if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


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
