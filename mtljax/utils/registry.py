"""Picking one of a dict by name, with arguments: `cagrad:c=0.4`.

Everything that lives in a dict (balancers, trunks, fusions, optimizers, schedules, sources,
augmentations) is named this way on the command line and in experiments.
"""

import ast
import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

Made = TypeVar("Made")


class Choice(NamedTuple, Generic[Made]):
    """A name of a dict and the arguments that were given for it."""

    name: str
    arguments: dict[str, Any]
    make: Callable[..., Made]
    """What the dict holds under that name."""
    text: str
    """What was written, with its kind, for messages."""

    def made(self, *positional: Any, **more: Any) -> Made:
        """The thing itself.

        Raises:
          ValueError: Its arguments are of the right type, but it cannot be made of them.
        """
        try:
            return self.make(*positional, **self.arguments, **more)
        except ValueError:
            raise
        except Exception as error:  # whatever a library says of a number it cannot take
            raise ValueError(f"{self.text} cannot be made: {error}") from error


SHORT = 12
"""Most words that are told to somebody who nearly had the right one."""


def nearest(word: str, words: Iterable[str]) -> str:
    """What to tell somebody who wrote a word that is not there: the nearest, or else all."""
    words = sorted(words)
    hint = did_you_mean(word, words)
    if hint and len(words) > SHORT:
        return hint
    return f"{hint} (there is {', '.join(words) or 'none'})"


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """The nearest word as a question; nothing if none is near."""
    close = difflib.get_close_matches(word, sorted(words), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def choose(
    kind: str, text: str, options: Mapping[str, Callable[..., Made]], hidden: Iterable[str] = ()
) -> Choice[Made]:
    """Reads `name` or `name:argument=value,...`; values are Python literals or plain words.

    A first argument that has no default may be given without its name: `folder:my/data`.

    Args:
      kind: What is chosen, for messages: "balancer".
      text: What was written. A tuple is written in parentheses: `mlp:widths=(64,64)`.
      options: Name -> function or class; its signature says which arguments there are.
      hidden: Arguments of the signature that are not the user's to give.

    Raises:
      ValueError: In one line, naming what is nearest.

    Example:
      >>> choose("animal", "cat:lives=7", {"cat": lambda lives=9: lives}).arguments
      {'lives': 7}
    """
    name, _, rest = text.partition(":")
    if name not in options:
        raise ValueError(f"unknown {kind} {name!r}{nearest(name, options)}")
    make = options[name]
    signature = inspect.signature(make)
    known = [p for p in signature.parameters if p not in hidden]
    arguments: dict[str, Any] = {}
    for part in split_arguments(rest):
        named = part.strip()[0] not in "'\"([{"
        key, equals, value = part.partition("=") if named else (part, "", "")
        key = key.strip().replace("-", "_")
        if not equals and not arguments and known and _required(make, known[0]):
            key, equals, value = known[0], "=", part
        if not equals:
            raise ValueError(f"{kind} {text!r}: {part!r} is not argument=value")
        if key not in known:
            raise ValueError(f"{kind} {name!r} has no argument {key!r}{nearest(key, known)}")
        if key in arguments:
            raise ValueError(f"{kind} {name!r}: {key} is given twice")
        try:
            arguments[key] = read_value(value.strip(), _hint(make, key))
        except TypeError as error:
            raise ValueError(f"{kind} {name!r}: {key} must be {error}, not {value!r}") from None
    required = [p for p in known if _required(make, p) and p not in arguments]
    if required:
        example = ",".join(f"{p}=..." for p in required)
        raise ValueError(f"{kind} {name!r} needs {', '.join(required)}: write {name}:{example}")
    return Choice(name, arguments, make, f"{kind} {text!r}")


def _required(make: Callable, key: str) -> bool:
    return inspect.signature(make).parameters[key].default is inspect.Parameter.empty


def read_value(text: str, hint: Any) -> Any:
    """What was written, in the type that the argument wants."""
    value = _literal(text)
    if hint is str and not isinstance(value, str):
        return text  # a folder may be called 2024
    return convert(value, hint)


def split_arguments(text: str) -> list[str]:
    """Cuts at commas that are not inside brackets or quotes."""
    parts, depth, start, quote = [], 0, 0, ""
    for i, char in enumerate(text):
        if char in "'\"" and quote in ("", char):
            quote = "" if quote else char
        elif not quote:
            depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0 and not quote:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return [part for part in parts if part.strip()]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _hint(make: Callable, key: str) -> Any:
    """What type an argument is, going by its default where the annotation is none of ours."""
    default = inspect.signature(make).parameters[key].default
    make = make.func if isinstance(make, functools.partial) else make
    try:
        hint = typing.get_type_hints(make.__init__ if inspect.isclass(make) else make)[key]
    except (KeyError, NameError):
        hint = Any
    if isinstance(default, (bool, int, float)) and hint not in (int, float, bool):
        return type(default)
    return hint


def convert(value: Any, hint: Any) -> Any:
    """`value` as the annotation wants it; TypeError says, in words, what that is."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is inspect.Parameter.empty:
        return value
    if origin in (typing.Union, types.UnionType):
        wanted = []
        for option in inner:
            try:
                return convert(value, option)
            except TypeError as error:
                wanted.append(str(error))
        raise TypeError(" or ".join(dict.fromkeys(w for w in wanted if w)))
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
        return tuple(convert(item, inner[0] if inner else Any) for item in items)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type):
        if isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
            return value
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
        raise TypeError(names.get(hint, ""))
    if isinstance(origin, type):
        raise TypeError("several values in parentheses" if issubclass(origin, Iterable) else "")
    return value
