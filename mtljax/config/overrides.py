"""Overrides of experiment fields from text, for --vary, --grid and --space."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from mtljax.config.experiment import Experiment
from mtljax.config.task_classes import type_hints
from mtljax.utils.registry import nearest, read_value, split_arguments

Override = tuple[str, str]
"""Dotted path of a field, and its value as text: ("data.batch_size", "32")."""
IDENTITY = {"seed", "name", "tasks"}
"""Fields that cannot be overridden."""
FINE_TUNING = ("freeze", "freeze_statistics", "layer_decay", "unfreeze_every", "l2_sp")
"""Fields that apply only together with `init`."""


def combinations(texts: Sequence[str], flag: str) -> Iterator[list[Override]]:
    """Yields all combinations of the `field=value,value` texts of a flag."""
    axes = []
    for text in texts:
        field, equals, values = text.partition("=")
        options = [value.strip() for value in split_arguments(values)]
        if not equals or not options:
            raise ValueError(f"{flag} {text!r} is not field=value,value")
        axes.append([(field.strip().replace("-", "_"), value) for value in options])
    names = [axis[0][0] for axis in axes]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{flag} has {name} twice; list all its values in one {name}=...")
    return map(list, itertools.product(*axes))


def with_overrides(experiment: Experiment, changes: Sequence[Override], flag: str) -> Experiment:
    """Copy with changed fields; see `with_override`.

    If the change removes `init`, the copy is trained `from_scratch` with the given changes.
    """
    changed = experiment
    for field, text in changes:
        changed = with_override(changed, field, text, flag)
    if changed.init is None and experiment.init is not None:
        changed = with_overrides(from_scratch(experiment), changes, flag)
    return changed


def from_scratch(experiment: Experiment) -> Experiment:
    """Copy with random initial weights and default fine-tuning fields: a fair baseline."""
    fields = [field for field in dataclasses.fields(Experiment) if field.name in FINE_TUNING]
    defaults: dict[str, Any] = {field.name: field.default for field in fields}
    return dataclasses.replace(experiment, init=None, **defaults)


def with_override(experiment: Experiment, path: str, text: str, flag: str) -> Experiment:
    """Copy with another value at a dotted path: `data.batch_size`, "32"; `flag` is for messages.

    Raises:
      ValueError: Unknown field or invalid value.
    """
    known = _paths(experiment) - IDENTITY
    if path not in known:
        raise ValueError(f"{flag}: there is no field {path!r}{nearest(path, known)}")
    fields = path.split(".")
    configs: list[Any] = list(itertools.accumulate(fields[:-1], getattr, initial=experiment))
    try:
        value = read_value(text, type_hints(type(configs[-1]))[fields[-1]])
    except TypeError as error:
        raise ValueError(f"{flag}: {path} must be {error}, not {text!r}") from None
    for config, field in zip(reversed(configs), reversed(fields), strict=True):
        value = dataclasses.replace(config, **{field: value})
    return value


def _paths(config: Any, prefix: str = "") -> set[str]:
    """Dotted paths of all fields of nested dataclasses."""
    paths = set()
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), prefix + field.name
        paths |= _paths(value, f"{path}.") if dataclasses.is_dataclass(value) else {path}
    return paths
