"""Raw command-line arguments, inspected before the flags are known."""

from collections.abc import Sequence


def asks_for_help(arguments: Sequence[str]) -> bool:
    """True if `--help` is among the arguments."""
    return not {"-h", "--help"}.isdisjoint(arguments)


def value_of(arguments: Sequence[str], flag: str) -> str | None:
    """Value of one flag; None if the flag or its value is missing."""
    for i, argument in enumerate(arguments):
        if argument.startswith(flag + "="):
            return argument.partition("=")[2] or None
        if argument == flag:
            value = arguments[i + 1] if i + 1 < len(arguments) else ""
            return value if value and not value.startswith("-") else None
    return None
