"""Contract of merging methods: what they read and what they return."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import PyTree

from mtljax.tasks import Classification, MultiLabel, Segmentation, Task
from mtljax.tasks.binary_map import BinaryMap

Parameters = Mapping[str, np.ndarray]
"""Shared parameters by path."""
CATEGORICAL = (Classification, Segmentation)
"""Tasks whose outputs are logits of a softmax."""
BINARY = (MultiLabel, BinaryMap)
"""Tasks whose outputs are logits of a sigmoid each."""


class Batches(Protocol):
    """Unaugmented images of a split, with their labels."""

    def __call__(self, split: str, size: int, count: int) -> Iterator[Mapping[str, PyTree]]:
        """Iterates over `count` batches of `size` examples, in an order fixed by the seed."""


class Network(NamedTuple):
    """Single-task network of a run."""

    task: Task
    """Task of the run."""
    model: Any
    """Single-task model."""
    variables: Mapping[str, PyTree]
    """Variables of the model at the best checkpoint."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """Networks to merge and the data that a merging method may read."""

    start: Parameters
    """Shared parameters that all runs started from."""
    tuned: Sequence[Parameters]
    """Shared parameters of each run."""
    seed: int = 0
    """Seed of random choices."""
    networks: Sequence[Network] = ()
    """Single-task networks, in the order of the tasks."""
    batches: Batches | None = None
    """Training images in batches; None for methods that read none."""
    forward: Callable[[Mapping[str, Any], PyTree], dict[str, PyTree]] | None = None
    """(shared parameters, images) -> {task: output} of the multi-task network with the heads of the
    runs, in evaluation mode, but with batch normalization by the statistics of these images."""

    @property
    def task_vectors(self) -> list[dict[str, np.ndarray]]:
        """Difference between the shared parameters of each run and the start."""
        return [{path: x - self.start[path] for path, x in run.items()} for run in self.tuned]


class Candidate(NamedTuple):
    """Merged shared parameters, one of those between which validation chooses."""

    settings: Mapping[str, Any]
    """Chosen or learned values, as JSON: the scale, coefficients."""
    shared: Parameters
    """Merged parameters by path."""


@dataclasses.dataclass(frozen=True)
class Merger:
    """Merging method."""

    candidates: Callable[[Problem], Iterator[Candidate]]
    """Iterates over the candidates; validation chooses if there are several."""
    check: Callable[[Sequence[Task]], None] = lambda tasks: None
    """Raises ValueError for tasks that the method cannot merge."""


def mean(parameters: Sequence[Parameters]) -> dict[str, np.ndarray]:
    """Mean of the shared parameters of the runs."""
    return {path: np.mean([run[path] for run in parameters], axis=0) for path in parameters[0]}


def along(start: Parameters, direction: Parameters, scale: float) -> dict[str, np.ndarray]:
    """Parameters at `scale` times a direction from the start."""
    scaled = lambda path, x: (x + scale * direction[path]).astype(x.dtype)
    return {path: scaled(path, x) for path, x in start.items()}


def to_numpy(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Copies arrays by path to the host."""
    return {path: np.asarray(x) for path, x in jax.device_get(dict(tree)).items()}


def shapes(parameters: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of arrays by path."""
    return {path: tuple(np.shape(x)) for path, x in parameters.items()}
