"""Plan of a comparison: methods, candidates and members.

A *method* is one row of the comparison: the single-task baseline of a task, or a balancer with a
fusion and a trunk. Its *candidates* are the points of the grid; validation chooses one of them. A
*member* is a candidate with a seed, and with a fold in a cross-validation: one experiment, one run
folder.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mtljax.build import build
from mtljax.config import Data, Experiment, to_json
from mtljax.config.balancers import canonical_text, split_preference
from mtljax.config.files import defaults
from mtljax.config.overrides import Override, combinations, with_overrides
from mtljax.data.folds import Fold
from mtljax.merging.compatibility import network_experiment
from mtljax.runs.selection import check_select, select_of_task
from mtljax.training.merged_run import make_merger

FOLDER = "members"
"""Folder of the runs of a comparison."""
ADDED_FIELDS = frozenset(
    {
        *("learning_rate_scales", "patience", "fold", "on_error", "decoder", "cache"),
        *("class_weights", "focal", "dice", "Segmentation.label_smoothing"),
        *("positive_weights", "uncertain", "no_class"),
        *("mirror", "order"),
        *("unit", "Depth.ignore", "max_value"),
        *("condition", "sharding"),
    }
)
"""Fields, of all classes or of one, that version 0.1.0 did not have."""
STL = "STL"
"""Name of the row of single-task baselines."""
Kind = Literal["stl", "method"]
"""Single-task baseline or compared method."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """One setting of a method."""

    settings: str
    """Grid point as text, `learning_rate=0.001`; empty without a grid."""
    experiment: Experiment
    """Experiment with the setting; its seed is replaced by that of each run."""
    merge: str = ""
    """Merging method of a run that is merged from others, not trained; else empty."""
    parts: tuple["Candidate", ...] = ()
    """Single-task candidates of which the runs of the same seed are merged."""

    @property
    def steps(self) -> int:
        """Number of updates of a run."""
        return 0 if self.merge else self.experiment.steps

    def member(self, seed: int, fold: Fold | None = None) -> Experiment:
        """Experiment of a seed, and of a fold of a cross-validation."""
        experiment = dataclasses.replace(self.experiment, seed=seed)
        if fold is None:
            return experiment
        data = dataclasses.replace(experiment.data, fold=str(fold))
        return dataclasses.replace(experiment, data=data)

    @functools.cached_property
    def program(self) -> str:
        """Text that candidates have in common if the same program trains them.

        They differ only in the preference of their balancer, which is in its state.
        """
        method, preference = split_preference(self.experiment.balancer)
        if preference is None:
            return str(id(self))
        return json.dumps(to_json(dataclasses.replace(self.experiment, balancer=method)))

    def folder(self, workdir: Path, seed: int, fold: Fold | None = None) -> Path:
        """Run folder of a member; it depends on the member's experiment only."""
        config = _identity(self.experiment)
        if self.merge:
            runs = [_identity(part.experiment) for part in self.parts]
            config["merge"] = {"method": self.merge, "runs": runs}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
        tasks = "-".join(task.name for task in self.experiment.tasks)
        how = f"merge-{self.merge}" if self.merge else config["balancer"]
        name = re.sub(r"[^\w.=-]+", "_", f"{how}-{tasks}")[:60].strip("_")
        parent = workdir / FOLDER / f"{name}-{digest}"
        if fold is not None:
            parent /= f"fold-{fold.number}-of-{fold.total}"
        return parent / f"seed-{seed}"


def _identity(experiment: Experiment) -> dict[str, Any]:
    """Configuration that names a member's folder; the same as before fields were added."""
    config = to_json(experiment)
    config["balancer"] = canonical_text(experiment.balancer)
    del config["seed"]
    classes = (Experiment, Data, *map(type, experiment.tasks))
    for cls, part in zip(classes, (config, config["data"], *config["tasks"]), strict=True):
        for name, value in defaults(cls).items():
            is_added = bool(ADDED_FIELDS & {name, f"{cls.__name__}.{name}"})
            if is_added and part[name] in (value, getattr(cls, "former", {}).get(name, value)):
                del part[name]
    return config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """Compared method with its candidates."""

    name: str
    """Name in tables and of the folder."""
    kind: Kind
    """`method`, or `stl` for single-task networks."""
    baseline: str
    """Name of the row of single-task networks with the same settings."""
    candidates: tuple[Candidate, ...]
    """Settings, of which validation chooses one."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the learned tasks."""
        return tuple(task.name for task in self.candidates[0].experiment.tasks)


def plan(
    experiment: Experiment,
    *,
    balancers: Sequence[str] = (),
    fusions: Sequence[str] = (),
    trunks: Sequence[str] = (),
    vary: Sequence[str] = (),
    grid: Sequence[str] = (),
    merges: Sequence[str] = (),
) -> list[Method]:
    """Returns the methods of a comparison: baselines, methods, merged runs.

    Every balancer is combined with every fusion and trunk; the defaults are the experiment's.

    Args:
      vary: `field=value,value` per field; all combinations become separate methods.
      grid: `field=value,value` per field; all combinations become candidates of every method and
        baseline. With `init=none` in `vary` or `grid` a run is trained `from_scratch`.
      merges: Merging methods, applied to the single-task runs of each seed.

    Raises:
      ValueError: Unknown name, field or value, or a duplicate method.
    """
    balancers, fusions = balancers or [experiment.balancer], fusions or [experiment.fusion]
    trunks, points = trunks or [experiment.trunk], list(combinations(grid, "--grid"))
    variants = list(combinations(vary, "--vary"))
    flags = {kind: f"--{kind}s" for kind in ("balancer", "fusion", "trunk")}
    flags |= {field: "--grid" for field, _ in points[0]}
    for field, _ in variants[0]:
        if field in flags:
            raise ValueError(f"--vary cannot have {field}: its values are set by {flags[field]}")

    bases = _bases(experiment, trunks, variants)
    new = functools.partial(_method, points)
    methods = []
    for base, task in itertools.product(bases, experiment.tasks):
        single = single_task(base.experiment, task.name)
        methods.append(new("stl", base, [f"{STL} {task.name}", *base.labels], single))
    for base, fusion, balancer in itertools.product(bases, fusions, balancers):
        labels = base.labels + [f"fusion {fusion}"] * (len(fusions) > 1)
        labels += [balancer] * (len(balancers) > 1 or not labels)
        variant = dataclasses.replace(base.experiment, fusion=fusion, balancer=balancer)
        methods.append(new("method", base, labels, variant))
    for base, merge in itertools.product(bases, merges):
        variant = dataclasses.replace(base.experiment, fusion="none")
        method = new("method", base, [f"merge {merge}", *base.labels], variant)
        singles = [m for m in methods if m.kind == "stl" and m.baseline == method.baseline]
        methods.append(_merged(method, singles, merge))
    _check(methods)
    return methods


class _Base(NamedTuple):
    """Settings that methods share with their single-task baselines, and labels for their names."""

    labels: list[str]
    experiment: Experiment


def _bases(
    experiment: Experiment, trunks: Sequence[str], variants: Sequence[Sequence[Override]]
) -> list[_Base]:
    """Every trunk with every combination of varied fields."""
    bases = []
    for trunk, variant in itertools.product(trunks, variants):
        base = with_overrides(dataclasses.replace(experiment, trunk=trunk), variant, "--vary")
        labels = [f"trunk {trunk}"] * (len(trunks) > 1)
        bases.append(_Base(labels + [f"{field} {text}" for field, text in variant], base))
    return bases


def _method(
    points: Sequence[Sequence[Override]],
    kind: Kind,
    base: _Base,
    labels: Sequence[str],
    experiment: Experiment,
) -> Method:
    """Method with a candidate for each point of the grid."""
    candidates = tuple(
        Candidate(
            settings=", ".join(f"{field}={text}" for field, text in point),
            experiment=with_overrides(experiment, point, "--grid"),
        )
        for point in points
    )
    baseline = ", ".join([STL, *base.labels])
    return Method(name=", ".join(labels), kind=kind, baseline=baseline, candidates=candidates)


def _merged(method: Method, singles: Sequence[Method], merge: str) -> Method:
    """Method that merges the runs of single-task methods with the same settings.

    Raises:
      ValueError: The merging method is unknown, or not for the tasks, or there is only one task.
    """
    if len(singles) < 2:
        raise ValueError("--merges needs an experiment with at least two tasks")
    make_merger(merge).check(method.candidates[0].experiment.tasks)
    candidates = [
        dataclasses.replace(
            candidate,
            experiment=network_experiment(candidate.experiment),
            merge=merge,
            parts=tuple(single.candidates[i] for single in singles),
        )
        for i, candidate in enumerate(method.candidates)
    ]
    return dataclasses.replace(method, candidates=tuple(candidates))


def single_task(experiment: Experiment, task: str) -> Experiment:
    """Single-task baseline with the same trunk, budget and data."""
    labels = {name: key for name, key in experiment.data.labels.items() if name == task}
    other_heads = {f"task_{other.name}" for other in experiment.tasks if other.name != task}
    return dataclasses.replace(
        experiment,
        tasks=tuple(t for t in experiment.tasks if t.name == task),
        data=dataclasses.replace(experiment.data, labels=labels),
        fusion="none",
        condition="none",
        balancer="ew",
        level="parameters",
        heads="auto",
        select=select_of_task(experiment.select, task),
        learning_rate_scales={
            name: x
            for name, x in experiment.learning_rate_scales.items()
            if name not in other_heads
        },
        teachers={},  # a distilled network would not be an independent baseline
    )


def _check(methods: Sequence[Method]) -> None:
    name_of: dict[Path, str] = {}
    names = [method.name for method in methods]
    for method in methods:
        if names.count(method.name) > 1:
            raise ValueError(f"method {method.name!r} is listed twice; remove one")
        for candidate in method.candidates:
            build(candidate.experiment)
            check_select(candidate.experiment)
        if method.kind == "method":  # one with a single task may be its own baseline
            first = name_of.setdefault(method.candidates[0].folder(Path(), 0), method.name)
            if first != method.name:
                raise ValueError(f"methods {first!r} and {method.name!r} are the same; remove one")
