"""Parsing of command-line flags into dataclasses by tyro, with errors of one line."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from mtljax.utils.registry import did_you_mean, nearest

T = TypeVar("T")

RULE = "╭╮╰╯─+-"
"""Characters of the horizontal lines of tyro's error box, with and without Unicode."""
PROGRAM = "python -m mtljax.main"
"""Command that runs the program."""

OTHER_NAMES = {
    "--early-stopping": "--patience N",
    "--early-stopping-patience": "--patience N",
    "--epochs": "--steps N",
    "--lr": "--learning-rate X",
    "--weight-decay": "--optimizer adamw:weight_decay=X",
    **dict.fromkeys(
        ("--folds", "--k-folds", "--kfold", "--cv", "--cross-validation"),
        "--data.fold 1/N for one fold, or `compare --folds N` for all",
    ),
    "--head-learning-rate": "--learning-rate-scales task_NAME FACTOR",
    "--head-lr": "--learning-rate-scales task_NAME FACTOR",
    "--trunk-learning-rate": "--learning-rate-scales trunk FACTOR",
    "--trunk-lr": "--learning-rate-scales trunk FACTOR",
    "--backbone-learning-rate": "--learning-rate-scales trunk FACTOR",
    "--backbone-lr": "--learning-rate-scales trunk FACTOR",
    "--class-weights": "--tasks.0.class-weights balanced",
    "--focal": "--tasks.0.focal 2",
    "--focal-loss": "--tasks.0.focal 2",
    "--label-smoothing": "--tasks.0.label-smoothing X",
    "--dice": "--tasks.0.dice 1",
    "--pos-weight": "--tasks.0.positive-weights balanced",
}
"""Flags of comparable programs -> flag with the same effect."""

REGISTRY = tyro.constructors.ConstructorRegistry()
"""Parsers of values, in addition to those of tyro."""


@REGISTRY.primitive_rule
def _none(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
    """None is written `none`, as in arguments of choices, or `None`."""
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
    """Parses flags into a dataclass.

    Args:
      flags: The dataclass; the flags of a nested dataclass have its field name as prefix.
      verb: Name of the verb, for `--help`.
      default: Values of flags that are not given.

    Raises:
      ValueError: Unknown flag, with the nearest one, or a value of the wrong type.
      SystemExit: Help was requested and printed.
    """
    settings: dict[str, Any] = {}
    modules: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if default is not None:
        from mtljax.config.task_classes import executed_modules  # lazy: JAX takes long to import

        settings["default"], modules = default, executed_modules()
    errors = io.StringIO()
    known = _flag_names(flags, default)
    try:
        with contextlib.redirect_stderr(errors), REGISTRY, modules:
            parsed, unknown = tyro.cli(
                flags,
                args=list(arguments),
                prog=f"{PROGRAM} {verb}",
                config=(tyro.conf.AvoidSubcommands,),
                return_unknown_args=True,
                **settings,
            )
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise ValueError(explain(errors.getvalue(), known)) from None
    if unknown:
        raise ValueError(_unknown(unknown[0], known))
    return parsed


def explain(error: str, known: Sequence[str]) -> str:
    """Summarizes tyro's error box in one line; `known` are all flags."""
    lines = [line.strip("│| ") for line in error.splitlines()[1:]]
    text = "\n".join("" if set(line) <= set(RULE) else line for line in lines)
    texts = [" ".join(part.split()) for part in re.split(r"\n\n+", text.strip())]
    text = texts[0] or "the flags cannot be parsed"

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
        return f"{match[1]} must be {_expected(match[2])}"
    return re.sub(r"^Error parsing [\w.]+: ", "", text)


def _expected(reason: str) -> str:
    value = re.search(r"'(.*)'", reason)
    number = "an integer" if re.search(r"\bint\b|INT", reason) else "a number"
    words = re.search(r"no type matching \{(.*?)\}\|", reason)
    if words:
        number = f"{words[1].replace(',', ', ')} or {number}"
    if "key-value pairs" in reason:
        return "pairs: NAME VALUE [NAME VALUE ...]"
    return f"{number}, not {value[1]!r}" if value else f"of another type: {reason}"


def _unknown(argument: str, known: Sequence[str]) -> str:
    if not argument.startswith("-"):
        hint = "a run is named with --run DIR, and " if "--run" in known else ""
        return f"unexpected argument {argument!r}: {hint}the flag before it takes no more values"
    flag = argument.partition("=")[0]
    other = OTHER_NAMES.get(flag, "")
    if other and any(name.startswith(other.split()[0]) for name in known):
        return f"unknown flag {flag!r}; use {other} (--help shows all flags)"
    return f"unknown flag {flag!r}{did_you_mean(flag, known)} (--help shows all flags)"


def _flag_names(flags: type, default: Any) -> list[str]:
    if default is None:
        fields = [f for f in dataclasses.fields(flags) if "Positional" not in str(f.type)]
        return ["--" + field.name.replace("_", "-") for field in fields]
    from mtljax.utils.tree import flatten_json  # lazy: JAX takes long to import

    parts = (dataclasses.asdict(getattr(default, f.name)) for f in dataclasses.fields(flags))
    return ["--" + name.replace("_", "-") for part in parts for name in flatten_json(part)]
