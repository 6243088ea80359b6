"""Raw command-line arguments, inspected before the flags are known."""

from collections.abc import Mapping, Sequence


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


def merge_pairs(arguments: Sequence[str], flag: str, default: Mapping[str, object]) -> list[str]:
    """Rewrites `--flag.KEY VALUE` as `--flag KEY VALUE ...`, where KEY can be any name.

    The former changes or adds a pair of the default, the latter replaces all pairs.

    Example:
      >>> merge_pairs(["--scales.a", "2", "--x"], "--scales", {"b": 3})
      ['--x', '--scales', 'b', '3', 'a', '2']
    """
    prefix = f"{flag}."
    pairs = {} if flag in arguments else {key: str(value) for key, value in default.items()}
    rest, found, words = [], False, iter(arguments)
    for word in words:
        if not word.replace("_", "-").startswith(prefix):
            rest.append(word)
            continue
        key, has_value, value = word[len(prefix) :].partition("=")
        if not has_value and (value := next(words, "--")).startswith("--"):
            raise ValueError(f"{word} needs a value")
        underscored = key.replace("-", "_")
        pairs[underscored if underscored in default else key] = value
        found = True
    if not found:
        return list(arguments)
    at = rest.index(flag) if flag in rest else len(rest)
    words_of_pairs = [word for pair in pairs.items() for word in pair]
    return [*rest[:at], flag, *words_of_pairs, *rest[at + 1 :]]
