"""Selection from a registry by name, with arguments: `cagrad:c=0.4`.

Entries of every registry (balancers, trunks, fusions, optimizers, schedules, sources,
augmentations) are selected in this form on the command line and in experiments.
"""

import difflib
import functools
import inspect
import itertools
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from mtljax.utils.literal import parse_literal
from mtljax.utils.text import first_line, listed, quoted, shortened

T = TypeVar("T")

MOST = 1000
"""Number of characters of a list of names in an error message."""
FEW = 12
"""Number of names up to which an error message lists all of them in addition to the nearest."""


class Choice(NamedTuple, Generic[T]):
    """Entry of a registry and the arguments for it."""

    name: str
    """Name in the registry."""
    arguments: dict[str, Any]
    """Arguments given in the text."""
    factory: Callable[..., T]
    """Value in the registry."""
    text: str
    """Kind and input text, for error messages."""

    def build(self, *args: Any, **kwargs: Any) -> T:
        """Calls the factory; raises ValueError for arguments that it refuses."""
        try:
            return self.factory(*args, **self.arguments, **kwargs)
        except ValueError:
            raise
        except Exception as error:  # libraries raise many types for numbers out of range
            raise ValueError(f"{self.text} cannot be created: {first_line(error)}") from error


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns the end of an error message about an unknown name: the nearest, or all names."""
    names = sorted(names)
    hint = did_you_mean(name, names)
    few = not hint or len(names) <= FEW
    return f"{hint} (choose from {listed(names, MOST) or 'none'})" if few else hint


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Returns the nearest name as a question; empty if none is near."""
    close = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.5)
    return f"; did you mean {shortened(close[0])!r}?" if close else ""


def choose(
    kind: str,
    text: str,
    options: Mapping[str, Callable[..., T]],
    hidden: Iterable[str] = (),
    positional: bool = False,
) -> Choice[T]:
    """Parses `name` or `name:argument=value,...`; values are Python literals or plain words.

    A required first argument may be given without its name: `folder:my/data`.

    Args:
      text: Input text. A tuple is written in parentheses: `mlp:widths=(64,64)`.
      options: Registry: name -> function or class, whose signature defines the arguments.
      hidden: Arguments of the signature that users cannot set.
      positional: The first argument may be given without its name even if it has a default, and
        as several values, `preferred:2,1,1`, if it is a sequence.

    Raises:
      ValueError: The name or an argument is unknown, missing or of the wrong type.

    Example:
      >>> choose("animal", "cat:lives=7", {"cat": lambda lives=9: lives}).arguments
      {'lives': 7}
    """
    name, _, rest = text.partition(":")
    if name not in options:
        own = "; if it is your own, --experiment must be the file that adds it (Python: import it)"
        hint = "" if not name or did_you_mean(name, options) else own
        raise ValueError(f"unknown {kind} {quoted(name)}{nearest(name, options)}{hint}")
    factory = options[name]
    parameters = inspect.signature(factory).parameters
    known = [p for p in parameters if p not in hidden]
    required = [p for p in known if parameters[p].default is inspect.Parameter.empty]
    arguments: dict[str, Any] = {}
    parts = split_arguments(rest)
    if positional and known and parts and "=" not in parts[0]:
        unnamed = list(itertools.takewhile(lambda part: "=" not in part, parts))
        hint, value = _hint(factory, known[0]), ",".join(unnamed)
        several = typing.get_origin(hint) is Sequence and value[0] not in "(["
        parts = [f"{known[0]}=" + (f"({value},)" if several else value), *parts[len(unnamed) :]]
    for part in parts:
        named = part.strip()[0] not in "'\"([{"
        key, equals, value = part.partition("=") if named else (part, "", "")
        key = key.strip().replace("-", "_")
        if not equals and not arguments and required and required[0] == known[0]:
            key, equals, value = known[0], "=", part
        if not equals:
            raise ValueError(f"{kind} {quoted(text)}: {quoted(part)} is not argument=value")
        if key not in known:
            raise ValueError(f"{kind} {name!r} has no argument {quoted(key)}{nearest(key, known)}")
        if key in arguments:
            raise ValueError(f"{kind} {name!r}: {key} is given twice")
        try:
            arguments[key] = read_value(value.strip(), _hint(factory, key))
        except TypeError as error:
            raise ValueError(
                f"{kind} {name!r}: {key} must be {error}, not {quoted(value)}"
            ) from None
    missing = [p for p in required if p not in arguments]
    if missing:
        example = ",".join(f"{p}=..." for p in missing)
        raise ValueError(f"{kind} {name!r} needs {', '.join(missing)}: write {name}:{example}")
    return Choice(name, arguments, factory, f"{kind} {text!r}")


def read_value(text: str, hint: Any) -> Any:
    """Converts text to the type of an argument."""
    value = _literal(text)
    if hint is str and not isinstance(value, str):
        return text  # a folder may be called 2024
    return convert(value, hint)


def split_arguments(text: str) -> list[str]:
    """Splits at commas outside brackets and quotes; without empty parts."""
    return [part for part in split_outside(text, ",") if part.strip()]


def split_outside(
    text: str, at: str, is_next: Callable[[str], bool] = lambda char: True
) -> list[str]:
    """Splits at a character outside brackets and quotes, if `is_next` accepts the one after it."""
    parts, depth, start, quote = [], 0, 0, ""
    for i, char in enumerate(text):
        if char in "'\"" and quote in ("", char):
            quote = "" if quote else char
        elif not quote:
            depth += (char in "([{") - (char in ")]}")
        if char == at and depth == 0 and not quote and is_next(text[i + 1 : i + 2]):
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return parts


def _literal(text: str) -> Any:
    try:
        return parse_literal(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _hint(factory: Callable, key: str) -> Any:
    """Returns the annotated type of an argument, or the type of its numeric default."""
    default = inspect.signature(factory).parameters[key].default
    factory = factory.func if isinstance(factory, functools.partial) else factory
    try:
        hint = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)[key]
    except (KeyError, NameError):
        hint = Any
    if isinstance(default, (bool, int, float)) and hint not in (int, float, bool):
        return type(default)
    return hint


def convert(value: Any, hint: Any) -> Any:
    """Converts a value to an annotated type; the text of a TypeError describes the type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is inspect.Parameter.empty:
        return value
    if origin in (typing.Union, types.UnionType):
        expected = []
        for option in inner:
            try:
                return convert(value, option)
            except TypeError as error:
                expected.append(str(error))
        raise TypeError(" or ".join(filter(None, dict.fromkeys(expected))))
    if origin is typing.Literal:
        if value is None and "none" in inner:
            return "none"
        if value in inner:
            return value
        raise TypeError("one of " + ", ".join(map(str, inner)))
    if hint is type(None):
        if value is None:
            return None
        raise TypeError("none")
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise TypeError("names and values in braces")
        return {convert(k, inner[0]): convert(v, inner[1]) for k, v in value.items()}
    if isinstance(origin, type) and issubclass(origin, Iterable) and not isinstance(value, str):
        items = value if isinstance(value, (tuple, list)) else (value,)
        is_fixed = origin is tuple and ... not in inner and len(inner) == len(items)
        kinds = inner if is_fixed else (inner[0] if inner else Any,) * len(items)
        return tuple(map(convert, items, kinds))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type):
        if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
            return value
        names = {int: "an integer", float: "a number", bool: "true or false", str: "a word"}
        raise TypeError(names.get(hint, ""))
    if isinstance(origin, type):
        raise TypeError("several values in parentheses" if issubclass(origin, Iterable) else "")
    return value
