"""Checks that runs can be merged, and the experiment of the merged run."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtljax.config import Experiment
from mtljax.merging.base import Parameters, shapes
from mtljax.models.partition import partition
from mtljax.runs.load import TrainedModel
from mtljax.runs.selection import LOSS, parse_select
from mtljax.step.distillation import ADAPTERS
from mtljax.utils.tree import flatten

FIELDS = {
    "trunk": "networks",
    "fusion": "networks",
    "seed": "initial weights",
    "init": "initial weights",
    "init_part": "initial weights",
    "freeze_statistics": "batch statistics",
}
"""Fields of an experiment that runs to merge share, and what differs otherwise."""
DATA_FIELDS = ("source", "fold", "decoder")
"""Fields of `data` that must be equal in all runs."""
IMAGE_FIELDS = ("shape", "dtype", "low", "high", "folds")
"""Properties of the images that must be equal in all runs."""


def check_compatible(runs: Mapping[Path, TrainedModel]) -> None:
    """Checks the configurations and checkpoints of runs.

    Raises:
      ValueError: There are fewer than two runs, or one has several tasks, a task that another has,
        another network, other initial weights, data or normalization.
    """
    if len(runs) < 2:
        raise ValueError(f"merging needs at least two runs, not {len(runs)}")
    owner: dict[str, Path] = {}
    for path, run in runs.items():
        names = [task.name for task in run.experiment.tasks]
        if len(names) > 1:
            raise ValueError(
                f"{path} has {len(names)} tasks ({', '.join(names)}): runs to merge have one each"
            )
        if names[0] in owner:
            raise ValueError(
                f"{owner[names[0]]} and {path} have the same task {names[0]!r}: merge runs of "
                "different tasks"
            )
        owner[names[0]] = path
    (first, one), *others = runs.items()
    for path, other in others:
        if difference := _difference(one, other):
            raise ValueError(f"{first} and {path} cannot be merged: {difference}")


def _difference(one: TrainedModel, other: TrainedModel) -> str:
    """First difference that forbids to merge two runs; empty if there is none."""
    for field, kind in FIELDS.items():
        a, b = (getattr(run.experiment, field) for run in (one, other))
        if a != b:
            return f"their {kind} differ ({field} {a} and {b}); train both with the same"
    for field in DATA_FIELDS:
        a, b = (getattr(run.experiment.data, field) for run in (one, other))
        if a != b:
            return f"their data differ (data.{field} {a} and {b}); train both on the same"
    for field in IMAGE_FIELDS:
        a, b = (getattr(run, field) for run in (one, other))
        if a != b:
            return f"their images differ ({field} {a} and {b}); train both on the same"
    a, b = (run.state.model_state.get("constants", {}) for run in (one, other))
    if not _equal(a, b):
        return "they normalize images by different means or deviations; train both on the same"
    a, b = (shapes(shared_parameters(run.state.variables["params"])) for run in (one, other))
    if a != b:
        name = min(a.items() ^ b.items())[0]
        return f"{name} is not the same in both networks; train both with --fusion none"
    return ""


def _equal(a: Any, b: Any) -> bool:
    a, b = flatten(a), flatten(b)
    return a.keys() == b.keys() and all(np.array_equal(x, b[path]) for path, x in a.items())


def shared_parameters(params: Mapping[str, Any]) -> dict[str, Any]:
    """Shared parameters by path, without those that only distillation used."""
    return partition({name: part for name, part in params.items() if name != ADAPTERS})[0]


def check_start(paths: Sequence[Path], starts: Sequence[Parameters]) -> None:
    """Raises ValueError unless the runs started from the same shared parameters, bit for bit."""
    for path, start in zip(paths[1:], starts[1:], strict=True):
        for name, x in starts[0].items():
            if not np.array_equal(x, start[name]):
                raise ValueError(
                    f"{paths[0]} and {path} cannot be merged: they started from different weights "
                    f"({name} differs); train both with the same --seed and --init"
                )


def check_network(path: Path, shared: Mapping[str, Any], merged: Mapping[str, Any]) -> None:
    """Raises ValueError unless the multi-task network has the shared parameters of a run."""
    a, b = shapes(shared), shapes(merged)
    if a != b:
        raise ValueError(
            f"{path} cannot be merged: its parameter {min(a.items() ^ b.items())[0]} depends on "
            "the number of tasks; train the runs with --fusion none"
        )


def merged_experiment(experiments: Sequence[Experiment]) -> Experiment:
    """Experiment with the tasks of all runs; other settings may differ, and are the first's."""
    names = list(dict.fromkeys(experiment.name for experiment in experiments))
    first = experiments[0]
    labels = {k: v for experiment in experiments for k, v in experiment.data.labels.items()}
    return network_experiment(
        dataclasses.replace(
            first,
            name="+".join(names),
            tasks=tuple(task for experiment in experiments for task in experiment.tasks),
            data=dataclasses.replace(first.data, labels=labels),
            select=_merged_select(experiments),
            learning_rate_scales={},
            freeze=(),
            encrypt=any(experiment.encrypt for experiment in experiments),
        )
    )


def network_experiment(experiment: Experiment) -> Experiment:
    """Experiment of a merged run: options of multi-task training have their defaults."""
    return dataclasses.replace(
        experiment,
        condition="none",
        balancer="ew",
        level="parameters",
        jacobian="rows",
        heads="auto",
        ema=None,  # the runs' averages are merged
        teachers={},
        adversarial=None,
        patience=None,
    )


def _merged_select(experiments: Sequence[Experiment]) -> str:
    """Criterion by which validation chooses: that of the runs, or the sum of those of the runs."""
    texts = [experiment.select for experiment in experiments]
    if len(set(texts)) == 1:
        return texts[0]
    parts = []
    for experiment, text in zip(experiments, texts, strict=True):
        for name, weight in parse_select(text):
            name = f"{experiment.tasks[0].name}/{LOSS}" if name == LOSS else name
            parts.append(name if weight == 1 else f"{weight}:{name}")
    return "+".join(parts)
