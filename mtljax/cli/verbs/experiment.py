"""Flags of verbs that take an experiment: flags of the verb and one for each experiment field."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from mtljax.cli.arguments import asks_for_help, merge_pairs, value_of
from mtljax.cli.flags import parse
from mtljax.utils.registry import did_you_mean

if TYPE_CHECKING:
    from mtljax.config import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentFlags:
    """Flags of a verb that takes an experiment."""

    experiment: str = ""
    """Name of an experiment, path of a Python file that defines one, or path of the config.json of
    a run."""

    def options(self) -> Mapping[str, Any]:
        """Keyword arguments of the verb's function: flags except `experiment` and `workdir`."""
        return {k: v for k, v in vars(self).items() if k not in ("experiment", "workdir")}


T = TypeVar("T", bound=ExperimentFlags)


def read_experiment(
    arguments: list[str], verb: str, action: str, flags: type[T]
) -> tuple[T, "Experiment"]:
    """Parses the flags of a verb together with the fields of the experiment.

    The help text starts with `action`, as "Trains".

    Returns:
      (flags of the verb, the experiment with its flags applied).

    Raises:
      ValueError: The experiment is missing or unknown, or a flag is invalid.
      SystemExit: Help was requested and printed.
    """
    name = value_of(arguments, "--experiment")
    if name is None and asks_for_help(arguments):
        parse(_with_description(flags, action), ["--help"], verb)
    if name is None:
        for argument in arguments:
            hint = did_you_mean(argument, ["--experiment"])
            if hint and argument != "--experiment":
                raise ValueError(f"unknown flag {argument!r}{hint}")
        raise ValueError("missing --experiment NAME; `list experiments` shows the names")
    from mtljax.config import Experiment, find_experiment  # imports JAX

    experiment = find_experiment(name)

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class AllFlags:
        verb_flags: Annotated[flags, tyro.conf.arg(name="")]  # type: ignore[valid-type]
        config: Annotated[Experiment, tyro.conf.arg(name="")]

    AllFlags.__doc__ = (
        f"{action} the experiment {experiment.name!r}; defaults are the values of the experiment."
    )
    arguments, experiment = _merge_dicts(arguments, experiment)
    defaults = AllFlags(verb_flags=flags(experiment=name), config=experiment)
    parsed = parse(AllFlags, arguments, verb, defaults)
    return parsed.verb_flags, parsed.config


def _merge_dicts(arguments: list[str], experiment: "Experiment") -> tuple[list[str], "Experiment"]:
    """Applies `merge_pairs` to the fields that are dicts; the default of a given one is emptied."""
    for part in ("", "data"):
        owner: Any = getattr(experiment, part) if part else experiment
        empty: dict[str, Any] = {}
        for name, value in vars(owner).items():
            flag = "--" + f"{part}.{name}".strip(".").replace("_", "-")
            if isinstance(value, dict):
                arguments = merge_pairs(arguments, flag, value)
                empty |= {name: {}} if flag in arguments else {}
        owner = dataclasses.replace(owner, **empty)
        experiment = dataclasses.replace(experiment, data=owner) if part else owner
    return arguments, experiment


def _with_description(flags: type[T], action: str) -> type[T]:
    text = f"{action} an experiment. --experiment NAME --help also shows the experiment's fields."
    described = type(flags.__name__, (flags,), {"__doc__": text})
    return dataclasses.dataclass(frozen=True, kw_only=True)(described)
