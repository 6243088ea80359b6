"""Flags of verbs that are about an experiment: their own, and every field of it."""

import dataclasses
from typing import Annotated, Any, TypeVar

import tyro

from mtljax.cli.flags import asks_for_help, parse, value_of
from mtljax.utils.registry import did_you_mean

T = TypeVar("T")


def read_experiment(arguments: list[str], verb: str, what: str, kind: type[T]) -> tuple[T, Any]:
    """Reads a verb's own flags together with those of the experiment that one of them names.

    Args:
      arguments: The command line behind the verb.
      verb: What it is called.
      what: What it does with the experiment, for `--help`.
      kind: The dataclass of its own flags, with a field `experiment`.

    Returns:
      (its own flags, the experiment with the flags in it).

    Raises:
      ValueError: No experiment, or a flag that is wrong.
      SystemExit: After printing the help that was asked for.
    """
    name = value_of(arguments, "--experiment")
    if name is None and asks_for_help(arguments):
        parse(_described(kind, what), ["--help"], verb)
    if name is None:
        other = next((a for a in arguments if did_you_mean(a, ["--experiment"])), None)
        wrong = f"unknown flag {other!r}; " if other not in (None, "--experiment") else ""
        raise ValueError(
            f"{wrong}which experiment? add --experiment NAME (`list experiments` shows them)"
        )
    from mtljax.config import Experiment, find_experiment

    experiment = find_experiment(name)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Flags:
        own: Annotated[kind, tyro.conf.arg(name="")]  # type: ignore[valid-type]
        config: Annotated[Experiment, tyro.conf.arg(name="")]

    Flags.__doc__ = f"{what} the experiment {experiment.name!r}; the defaults are its own values."
    flags = parse(
        Flags, arguments, verb, Flags(own=kind(**{"experiment": name}), config=experiment)
    )
    return flags.own, flags.config


def _described(kind: type[T], what: str) -> type[T]:
    told = f"{what} an experiment, whose fields are flags too: --experiment NAME --help shows them."
    return dataclasses.dataclass(frozen=True, kw_only=True)(type("Own", (kind,), {"__doc__": told}))
