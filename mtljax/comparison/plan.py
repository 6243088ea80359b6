"""Which runs a comparison is made of.

A *method* is what is compared: the single-task baseline of a task, a balancer (with a fusion and a
trunk), or a fixed weighting. It has *candidates*, one per point of the grid, of which validation
chooses one. A *member* is a candidate with a seed: one experiment, one run folder.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.stats import qmc

from mtljax.build import build
from mtljax.config import Experiment, to_json
from mtljax.runs.selection import check_select
from mtljax.utils.registry import nearest, read_value, split_arguments

FOLDER = "members"
STL = "STL"
"""What the baselines of all tasks together are called."""
Kind = Literal["stl", "method", "front"]
FINE_TUNING = ("freeze", "freeze_statistics", "layer_decay", "unfreeze_every", "l2_sp")
"""Fields that go with `init`: from random weights they would only hinder, or mean nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """One setting of a method."""

    settings: str
    """The point of the grid in words, `learning_rate=0.001`; empty without a grid."""
    experiment: Experiment

    def member(self, seed: int) -> Experiment:
        """What is run with a seed."""
        return dataclasses.replace(self.experiment, seed=seed)

    def folder(self, workdir: Path, seed: int) -> Path:
        """The run folder of a member: the same for the same experiment, in any comparison."""
        config = to_json(self.experiment)
        del config["seed"]
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
        tasks = "-".join(task.name for task in self.experiment.tasks)
        name = re.sub(r"[^\w.=-]+", "_", f"{self.experiment.balancer}-{tasks}")[:60].strip("_")
        return workdir / FOLDER / f"{name}-{digest}" / f"seed-{seed}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """One thing that is compared."""

    name: str
    kind: Kind
    baseline: str
    """What the single-task networks with the same settings are called together."""
    candidates: tuple[Candidate, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it learns."""
        return tuple(task.name for task in self.candidates[0].experiment.tasks)


def plan(
    experiment: Experiment,
    *,
    balancers: Sequence[str] = (),
    fusions: Sequence[str] = (),
    trunks: Sequence[str] = (),
    vary: Sequence[str] = (),
    grid: Sequence[str] = (),
    front: int = 0,
) -> list[Method]:
    """All methods of a comparison: baselines first, then methods, then fixed weightings.

    Args:
      experiment: What is compared on; where nothing else is asked for, its own settings are used.
      balancers, fusions, trunks: What to cross.
      vary: `field=value,value` each, of any other field: crossed, too.
      grid: `field=value,value` each; every method, the baselines too, gets every point. Of both,
        what has `init=none` is trained `from_scratch`.
      front: How many fixed weightings.

    Raises:
      ValueError: A name, field or value that is not there, or the same method twice.
    """
    balancers, fusions = balancers or [experiment.balancer], fusions or [experiment.fusion]
    trunks, points = trunks or [experiment.trunk], list(grid_points(grid, "--grid"))
    variants = list(grid_points(vary, "--vary"))
    _check_apart(variants[0], points[0])
    if front < 0:
        raise ValueError(f"--front must be >= 0, not {front}")
    if front and len(experiment.tasks) < 2:
        raise ValueError("--front needs at least two tasks: one has nothing to weigh")

    bases = _bases(experiment, trunks, variants)
    make = functools.partial(_method, points)
    methods = []
    for base in bases:
        for task in experiment.tasks:
            single = single_task(base.experiment, task.name)
            methods.append(make("stl", base, [f"{STL} {task.name}", *base.words], single))
    for base, fusion, balancer in itertools.product(bases, fusions, balancers):
        words = base.words + [f"fusion {fusion}"] * (len(fusions) > 1)
        words += [balancer] * (len(balancers) > 1 or not words)
        chosen = dataclasses.replace(base.experiment, fusion=fusion, balancer=balancer)
        methods.append(make("method", base, words, chosen))
    for base in bases:
        for weights in simplex(len(experiment.tasks), front):
            text = ",".join(f"{w:.4g}" for w in weights)
            chosen = dataclasses.replace(
                base.experiment, fusion=fusions[0], balancer=f"fixed:weights=({text})"
            )
            methods.append(make("front", base, [f"fixed ({text})", *base.words], chosen))
    _check(methods)
    return methods


class _Base(NamedTuple):
    """What methods and their single-task baselines have in common."""

    words: list[str]
    """What sets it apart from the others."""
    experiment: Experiment


def _bases(
    experiment: Experiment, trunks: Sequence[str], variants: Sequence[Sequence[tuple[str, str]]]
) -> list[_Base]:
    """Every trunk with every variant of the other fields."""
    found = []
    for trunk, variant in itertools.product(trunks, variants):
        made = with_fields(dataclasses.replace(experiment, trunk=trunk), variant, "--vary")
        words = [f"trunk {trunk}"] * (len(trunks) > 1)
        found.append(_Base(words + [f"{field} {text}" for field, text in variant], made))
    return found


def _method(
    points: Sequence[Sequence[tuple[str, str]]],
    kind: Kind,
    base: _Base,
    words: Sequence[str],
    experiment: Experiment,
) -> Method:
    """A method with a candidate for each point of the grid."""
    candidates = []
    for point in points:
        settings = ", ".join(f"{field}={text}" for field, text in point)
        made = with_fields(experiment, point, "--grid")
        candidates.append(Candidate(settings=settings, experiment=made))
    return Method(
        name=", ".join(words),
        kind=kind,
        baseline=", ".join([STL, *base.words]),
        candidates=tuple(candidates),
    )


def single_task(experiment: Experiment, task: str) -> Experiment:
    """The baseline of one task: the same trunk, budget and data, with nothing to balance."""
    own = tuple(t for t in experiment.tasks if t.name == task)
    of_own = experiment.select.startswith(f"{task}/")
    labels = {name: key for name, key in experiment.data.labels.items() if name == task}
    return dataclasses.replace(
        experiment,
        tasks=own,
        data=dataclasses.replace(experiment.data, labels=labels),
        fusion="none",
        balancer="ew",
        level="parameters",
        heads="auto",
        select=experiment.select if of_own else "loss",
        teachers={},  # what is compared with must not have been helped by what it is like
    )


def simplex(tasks: int, count: int) -> np.ndarray:
    """[count, tasks] weightings with mean 1, spread evenly over the inside of the simplex."""
    if tasks == 2:
        first = (np.arange(count) + 0.5) / max(count, 1)
        return tasks * np.stack([first, 1 - first], 1)
    # Gaps between sorted uniform points are uniform on the simplex; Halton's are spread evenly.
    points = qmc.Halton(tasks - 1, scramble=False).random(count + 1)[1:]
    edges = np.sort(points, axis=1)
    return tasks * np.diff(edges, axis=1, prepend=0.0, append=1.0)


def grid_points(texts: Sequence[str], flag: str) -> Iterator[list[tuple[str, str]]]:
    """Every combination of `field=value,value` texts of a flag, as [(field, value), ...]."""
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
            raise ValueError(f"{flag} has {name} twice; write all its values behind one")
    return map(list, itertools.product(*axes))


def _check_apart(variant: Sequence[tuple[str, str]], point: Sequence[tuple[str, str]]) -> None:
    """Raises ValueError where --vary has a field that is somebody else's."""
    flags = {kind: f"--{kind}s" for kind in ("balancer", "fusion", "trunk")}
    flags |= {field: "--grid" for field, _ in point}
    for field, _ in variant:
        if field in flags:
            raise ValueError(f"--vary cannot have {field}: it has its values behind {flags[field]}")


def with_fields(
    experiment: Experiment, changes: Sequence[tuple[str, str]], flag: str
) -> Experiment:
    """A copy with the fields changed as a flag says; see `with_field`.

    One that no longer starts from weights is trained `from_scratch`, but for what the flag says.
    """
    made = experiment
    for field, text in changes:
        made = with_field(made, field, text, flag)
    if made.init is None and experiment.init is not None:
        made = with_fields(from_scratch(experiment), changes, flag)
    return made


def from_scratch(experiment: Experiment) -> Experiment:
    """The same from random weights, with nothing frozen or held back: a fair baseline."""
    usual: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(Experiment)}
    return dataclasses.replace(experiment, init=None, **{name: usual[name] for name in FINE_TUNING})


def with_field(value: Any, path: str, text: str, flag: str, whole: str | None = None) -> Any:
    """A copy of nested frozen dataclasses with one field changed: `data.batch_size`, "32".

    Raises:
      ValueError: There is no such field, or it cannot have this value; names the flag.
    """
    whole = whole or path
    first, _, rest = path.partition(".")
    fields = {field.name for field in dataclasses.fields(value)}
    if first not in fields or first in ("seed", "name", "tasks"):
        known = _paths(value) - {"seed", "name", "tasks"}
        raise ValueError(f"{flag}: there is no field {whole!r}{nearest(whole, known)}")
    if rest and dataclasses.is_dataclass(getattr(value, first)):
        return dataclasses.replace(
            value, **{first: with_field(getattr(value, first), rest, text, flag, whole)}
        )
    if rest:
        raise ValueError(f"{flag}: there is no field {whole!r}{nearest(rest, _paths(value))}")
    hint = typing.get_type_hints(type(value))[first]
    try:
        made = read_value(text, hint)
    except TypeError as error:
        raise ValueError(f"{flag}: {whole} must be {error}, not {text!r}") from None
    return dataclasses.replace(value, **{first: made})


def _paths(value: Any, prefix: str = "") -> set[str]:
    found = set()
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            found |= _paths(inner, f"{prefix}{field.name}.")
        else:
            found.add(f"{prefix}{field.name}")
    return found


def _check(methods: Sequence[Method]) -> None:
    names = [method.name for method in methods]
    for method in methods:
        if names.count(method.name) > 1:
            raise ValueError(f"{method.name!r} is asked for twice; leave one out")
        for candidate in method.candidates:
            build(candidate.experiment)
            check_select(candidate.experiment)
