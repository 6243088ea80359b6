"""Reading command-line flags into dataclasses, by tyro; what is wrong is said in one line."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from mtljax.utils.registry import did_you_mean, nearest
from mtljax.utils.tree import flatten_json

T = TypeVar("T")

RULE = "╭╮╰╯─+-"
"""What the lines of tyro's box are made of, on terminals with and without Unicode."""
PROGRAM = "python -m mtljax.main"

REGISTRY = tyro.constructors.ConstructorRegistry()
"""How values are read, beside what tyro knows itself."""


@REGISTRY.primitive_rule
def _none(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
    """Nothing is called `none`, as everywhere else in the program, or `None`."""
    if info.type is not type(None):
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="{none}",
        choices=("none", "None"),
        instance_from_str=lambda words: None,
        is_instance=lambda value: value is None,
        str_from_instance=lambda value: ["none"],
    )


def parse(flags: type[T], arguments: Sequence[str], verb: str, default: T | None = None) -> T:
    """Fills a dataclass from flags.

    Args:
      flags: The dataclass. A field that is itself a dataclass has its own prefix.
      arguments: The command line behind the verb.
      verb: What `--help` calls the command.
      default: Values of flags that are not given.

    Raises:
      ValueError: An unknown flag, naming the nearest, or a value of the wrong type.
      SystemExit: After printing the help that was asked for.
    """
    settings: dict[str, Any] = {
        "args": list(arguments),
        "prog": f"{PROGRAM} {verb}",
        "config": (tyro.conf.AvoidSubcommands,),
    }
    if default is not None:
        settings["default"] = default
    complaint = io.StringIO()
    known = _flag_names(flags, default)
    try:
        with contextlib.redirect_stderr(complaint), REGISTRY:
            made, unknown = tyro.cli(flags, return_unknown_args=True, **settings)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise ValueError(explain(complaint.getvalue(), known)) from None
    if unknown:
        raise ValueError(_unknown(unknown[0], known))
    return made


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether `--help` is among the arguments."""
    return not {"-h", "--help"}.isdisjoint(arguments)


def value_of(arguments: Sequence[str], flag: str) -> str | None:
    """The value of one flag, before it is known which others there are; None if it has none."""
    for i, argument in enumerate(arguments):
        if argument.startswith(flag + "="):
            return argument.partition("=")[2] or None
        if argument == flag:
            value = arguments[i + 1] if i + 1 < len(arguments) else ""
            return value if value and not value.startswith("-") else None
    return None


def explain(complaint: str, known: Sequence[str]) -> str:
    """What tyro's box of several lines says, in one line that a newcomer understands.

    Args:
      complaint: What tyro printed.
      known: The flags that there are.
    """
    lines = [line.strip("│| ") for line in complaint.splitlines()[1:]]
    text = "\n".join("" if set(line) <= set(RULE) else line for line in lines)
    texts = [" ".join(part.split()) for part in re.split(r"\n\n+", text.strip())]
    text = texts[0] or "the flags cannot be read"

    for other in texts[1:]:
        if match := re.match(r"Unrecognized options: (\S+)", other):
            return _unknown(match[1], known)
    if match := re.match(r"Missing from .*?: (.*)", text):
        names = re.findall(r"--[\w.-]+", match[1])
        return f"{', '.join(names)} is missing; add {' '.join(f'{n} ...' for n in names)}"
    if match := re.match(r"Missing value for argument '(.*?)'", text):
        return f"{match[1]} needs a value"
    if match := re.match(r"invalid choice '(.*)' for argument '(.*?)'\. Expected.* \((.*)\)", text):
        options = re.findall(r"'(.*?)'", match[3])
        return f"{match[2]} cannot be {match[1]!r}{nearest(match[1], options)}"
    if match := re.match(r"Error parsing (--\S+): (.*)", text):
        return f"{match[1]} must be {_wanted(match[2])}"
    return re.sub(r"^Error parsing [\w.]+: ", "", text)


def _wanted(reason: str) -> str:
    value = re.search(r"'(.*)'", reason)
    number = "a whole number" if re.search(r"\bint\b|INT", reason) else "a number"
    words = re.search(r"no type matching \{(.*?)\}\|", reason)
    if words:
        number = f"{words[1].replace(',', ', ')} or {number}"
    return f"{number}, not {value[1]!r}" if value else f"something else: {reason}"


def _unknown(argument: str, known: Sequence[str]) -> str:
    if not argument.startswith("-"):
        return f"unexpected argument {argument!r}: a flag before it takes no value, or one only"
    flag = argument.partition("=")[0]
    return f"unknown flag {flag!r}{did_you_mean(flag, known)} (--help shows all flags)"


def _flag_names(flags: type, default: Any) -> list[str]:
    if default is None:
        fields = [f for f in dataclasses.fields(flags) if "Positional" not in str(f.type)]
        return ["--" + field.name.replace("_", "-") for field in fields]
    parts = (dataclasses.asdict(getattr(default, f.name)) for f in dataclasses.fields(flags))
    return ["--" + name.replace("_", "-") for part in parts for name in flatten_json(part)]
