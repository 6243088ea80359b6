"""Exact evaluation of a split: metrics over the data set, not means of batches."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from mtljax.compilation import compiler_options
from mtljax.data.base import Split
from mtljax.data.pipeline import padded
from mtljax.evaluation.predictions import Predictions
from mtljax.parallel import Placement
from mtljax.step.eval_step import measure, predict
from mtljax.step.state import TrainState
from mtljax.tasks import Task


class Evaluator:
    """Evaluates states of one model on one split, which stays on the device if it is small."""

    def __init__(
        self,
        model: nn.Module,
        tasks: Sequence[Task],
        split: Split,
        batch_size: int,
        placement: Placement,
        *,
        keep_on_device: bool,
        change: Callable[[TrainState, PyTree], PyTree] | None = None,
    ):
        """Args: model; tasks; split; batch_size; placement; keep_on_device; change, what is done to
        every batch before it is looked at.
        """
        self.tasks, self._size, self._placement = tasks, len(split), placement

        def run(state: TrainState, batch: PyTree) -> tuple[PyTree, PyTree]:
            batch = batch if change is None else change(state, batch)
            outputs = predict(model, state, batch["image"])
            found = measure(tasks, outputs, batch), outputs
            return jax.lax.with_sharding_constraint(found, placement.replicated)

        options = compiler_options()
        self._run = jax.jit(run, compiler_options=options)
        self._run_each = jax.jit(
            jax.vmap(lambda state, batch: run(state, batch)[0], (0, None)), compiler_options=options
        )
        part = placement.local_rows(batch_size)

        def batches() -> Iterator[PyTree]:
            return (placement.spread(batch) for batch in padded(split, batch_size, part))

        kept = list(batches()) if keep_on_device else None
        self._batches = lambda: batches() if kept is None else kept

    def metrics(self, state: TrainState) -> dict[str, dict[str, Any]]:
        """{task: {metric: value}} over the whole split, the mean loss among them."""
        return summarise(self.tasks, (self._run(state, batch)[0] for batch in self._batches()))

    def metrics_of_each(self, states: TrainState, runs: int) -> list[dict[str, dict[str, Any]]]:
        """The metrics of each of several runs, whose states have an axis of runs first."""
        states = states.replace(opt_state=None, balancer_state=None)
        states = jax.device_put(states, self._placement.replicated)
        found = [jax.device_get(self._run_each(states, batch)) for batch in self._batches()]
        own = lambda run: (jax.tree.map(lambda x: x[run], part) for part in found)
        return [summarise(self.tasks, own(run)) for run in range(runs)]

    def constant_predictor_metrics(self, outputs: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The metrics of {task: output of one example}, taken to be that of every example."""
        tasks = [task for task in self.tasks if task.name in outputs]

        def run(outputs: PyTree, batch: PyTree) -> PyTree:
            count = len(batch["image"])
            same = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), outputs)
            return jax.lax.with_sharding_constraint(
                measure(tasks, same, batch), self._placement.replicated
            )

        compiled = jax.jit(run, compiler_options=compiler_options(use="once"))
        outputs = self._placement.replicate(outputs)
        return summarise(tasks, (compiled(outputs, batch) for batch in self._batches()))

    def metrics_and_predictions(
        self, state: TrainState, most: int = 5000
    ) -> tuple[dict[str, dict[str, Any]], Predictions]:
        """The same in the same pass, with the first `most` examples and the outputs for them."""
        kept: list[PyTree] = []

        def measured() -> Iterator[PyTree]:
            seen = 0
            for batch in self._batches():
                states, outputs = self._run(state, batch)
                if seen < min(most, self._size):
                    everywhere = jax.tree.map(_whole, batch)
                    kept.append(jax.device_get((everywhere, outputs)))
                    seen += len(batch["image"])
                yield states

        metrics = summarise(self.tasks, measured())
        end = min(most, self._size)
        batch, outputs = jax.tree.map(lambda *parts: np.concatenate(parts)[:end], *kept)
        return metrics, Predictions(batch["image"], outputs, batch["labels"], batch["present"])


def _whole(x: jax.Array) -> jax.Array:
    if x.is_fully_addressable:
        return x
    from jax.experimental.multihost_utils import process_allgather

    return process_allgather(x, tiled=True)


def summarise(tasks: Sequence[Task], states: Iterable[PyTree]) -> dict[str, dict[str, Any]]:
    """Adds up what `make_eval_step` gives for each batch, in 64 bits, and computes the metrics."""
    total: PyTree = None
    for state in states:
        state = jax.tree.map(_wide, jax.device_get(state))
        total = state if total is None else _merge(tasks, total, state)
    if total is None:
        raise ValueError("nothing to evaluate: no batch was given")
    result = {}
    for task in tasks:
        (loss, count), metrics = total[task.name]["loss"], total[task.name]["metrics"]
        mean = float(loss / count) if count else float("nan")
        if count and np.isnan(mean):
            mean = float("inf")  # it diverged: NaN says that no example carries the label
        result[task.name] = {"loss": mean, **task.metrics.compute(metrics)}
    return result


def _merge(tasks: Sequence[Task], a: PyTree, b: PyTree) -> PyTree:
    merged = {}
    for task in tasks:
        left, right = a[task.name], b[task.name]
        merged[task.name] = {
            "loss": tuple(x + y for x, y in zip(left["loss"], right["loss"], strict=True)),
            "metrics": task.metrics.merge(left["metrics"], right["metrics"]),
        }
    return merged


def _wide(x: Any) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype.kind == "f":
        return x.astype(np.float64)
    return x.astype(np.int64) if x.dtype.kind in "iu" else x


def scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """The metrics that are single numbers."""
    return {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
