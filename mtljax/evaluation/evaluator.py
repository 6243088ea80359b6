"""Exact evaluation of a split: metrics over the entire data set, not means over batches."""

import copy
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Int, PyTree

from mtljax.build import keeps_on_device
from mtljax.compilation import AheadOfTime, compiler_options
from mtljax.config import Experiment
from mtljax.data.base import Split, place_of
from mtljax.data.pipeline import padded_batches
from mtljax.evaluation.predictions import Predictions
from mtljax.parallel import Placement, to_host
from mtljax.step.eval_step import measure, predict
from mtljax.step.state import TrainState
from mtljax.tasks import Task
from mtljax.tasks.metric import SplitMetrics, TaskMetrics
from mtljax.utils.peers import mark
from mtljax.utils.tree import num_examples

MAX_PREDICTION_BYTES = 2**30
"""Memory for the images, outputs and labels that reports draw; a mask of 512 x 512 pixels and 19
classes has 20 MB of outputs."""


class Evaluator:
    """Evaluator of one model on one split, with compiled functions that are reused."""

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
        """Initializes the evaluator.

        Args:
          keep_on_device: Keep the data on the device between evaluations.
          change: Function of (state, batch) applied to every batch before the model, as an attack.
        """
        self.tasks, self._placement, self._batch_size = tasks, placement, batch_size

        gather = placement.constraints.gather

        def run(state: TrainState, batch: PyTree) -> tuple[PyTree, PyTree]:
            state = state.replace(params=gather(state.params), ema=gather(state.ema))
            batch = batch if change is None else change(state, batch)
            outputs = predict(model, state, batch["image"])
            results = measure(tasks, outputs, batch), outputs
            return jax.lax.with_sharding_constraint(results, placement.replicated)

        options = compiler_options()
        self._run = AheadOfTime(jax.jit(run, compiler_options=options))
        self._run_each = jax.jit(
            jax.vmap(lambda state, batch: run(state, batch)[0], (0, None)), compiler_options=options
        )
        self._read(split, keep_on_device)

    def with_split(self, split: Split, *, keep_on_device: bool) -> "Evaluator":
        """Returns the evaluator of another split, which shares the compiled functions."""
        evaluator = copy.copy(self)
        evaluator._read(split, keep_on_device)
        return evaluator

    def _read(self, split: Split, keep_on_device: bool) -> None:
        placement, batch_size = self._placement, self._batch_size
        rows = placement.local_rows(batch_size)

        def batches() -> Iterator[PyTree]:
            for batch in padded_batches(split, batch_size, rows):
                mark()
                yield placement.shard(batch)

        resident = list(batches()) if keep_on_device else []
        self._split, self._size, self._resident = split, len(split), resident
        self._batches = lambda: resident or batches()

    def compile_ahead(self, state: TrainState) -> None:
        """Starts to compile the evaluation of a state like this one; see `AheadOfTime`.

        No effect for stacked states, and for data that is not on the device.
        """
        if self._resident and not state.step.ndim:
            self._run.compile_ahead(state, self._resident[0])

    def metrics(self, state: TrainState) -> SplitMetrics:
        """Returns {task: {metric: value}} over the split, including the mean `loss`."""
        return compute_metrics(
            self.tasks, (self._run(state, batch)[0] for batch in self._batches())
        )

    def metrics_per_run(self, state: TrainState) -> list[SplitMetrics]:
        """Returns the metrics of each run of a stacked state; an unstacked state is one run."""
        if not state.step.ndim:
            return [self.metrics(state)]
        runs = range(len(state.step))
        state = state.replace(opt_state=None, balancer_state=None)
        state = jax.device_put(state, self._placement.replicated)
        parts = [jax.device_get(self._run_each(state, batch)) for batch in self._batches()]
        of_run = lambda run: (jax.tree.map(lambda x: x[run], part) for part in parts)
        return [compute_metrics(self.tasks, of_run(run)) for run in runs]

    def constant_predictor_metrics(self, outputs: Mapping[str, PyTree[np.ndarray]]) -> SplitMetrics:
        """Returns the metrics of {task: output of one example}, used for every example."""
        tasks = [task for task in self.tasks if task.name in outputs]

        def run(outputs: PyTree, batch: PyTree) -> PyTree:
            count = num_examples(batch["image"])
            repeated = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), outputs)
            return jax.lax.with_sharding_constraint(
                measure(tasks, repeated, batch), self._placement.replicated
            )

        compiled = jax.jit(run, compiler_options=compiler_options(use="once"))
        outputs = self._placement.replicate(outputs)
        return compute_metrics(tasks, (compiled(outputs, batch) for batch in self._batches()))

    def predictions(self, state: TrainState) -> Iterator[Predictions]:
        """Iterates over the predictions, batch by batch."""
        start = 0
        for batch in self._batches():
            batch, outputs = to_host((batch, self._run(state, batch)[1]))
            count = min(num_examples(batch["image"]), self._size - start)
            batch, outputs = jax.tree.map(lambda x, n=count: x[:n], (batch, outputs))
            yield Predictions(batch["image"], outputs, batch["labels"], batch["present"])
            start += count

    def metrics_and_predictions(
        self, state: TrainState, max_examples: int = 5000
    ) -> tuple[SplitMetrics, Predictions]:
        """Returns the metrics, and the predictions for a random sample of the examples.

        The sample is the entire split if it has at most `max_examples` examples, whose images,
        outputs and labels need at most `MAX_PREDICTION_BYTES`.
        """
        recorded, rows = [], None
        labeled = dict.fromkeys((task.name for task in self.tasks), 0)

        def states() -> Iterator[PyTree]:
            nonlocal rows
            start = 0
            for batch in self._batches():
                metric_state, outputs = self._run(state, batch)
                present = to_host(batch["present"])
                for name in labeled:
                    labeled[name] += int(present[name].sum())
                rows = self._sample(max_examples, batch, outputs) if rows is None else rows
                stop = start + len(present[next(iter(labeled))])
                chosen = rows[(start <= rows) & (rows < stop)] - start
                if len(chosen):
                    host = to_host((batch, outputs))
                    recorded.append(jax.tree.map(lambda x, at=chosen: x[at], host))
                start = stop
                yield metric_state

        metrics = compute_metrics(self.tasks, states())
        batch, outputs = jax.tree.map(lambda *parts: np.concatenate(parts), *recorded)
        assert rows is not None
        places = [place_of(self._split, int(row)) for row in rows]
        return metrics, Predictions(
            batch["image"],
            outputs,
            batch["labels"],
            batch["present"],
            places=places if any(places) else (),
            split_labels=labeled,
            split_size=self._size,
        )

    def _sample(self, max_examples: int, batch: PyTree, outputs: PyTree) -> Int[np.ndarray, " n"]:
        """Returns the rows of the examples to record, ascending; always the same."""
        size = sum(x.nbytes for x in jax.tree.leaves((batch, outputs)))
        fitting = MAX_PREDICTION_BYTES * num_examples(batch["image"]) // size
        count = min(self._size, max_examples, max(1, fitting))
        return np.sort(np.random.default_rng(0).permutation(self._size)[:count])


def make_evaluator(
    experiment: Experiment,
    model: nn.Module,
    split: Split,
    placement: Placement,
    *,
    change: Callable[[TrainState, PyTree], PyTree] | None = None,
) -> Evaluator:
    """Creates an `Evaluator` with an experiment's tasks, batch size and place of the data."""
    return Evaluator(
        model,
        experiment.tasks,
        split,
        experiment.data.batch_size,
        placement,
        keep_on_device=change is None and keeps_on_device(experiment, split),
        change=change,
    )


def compute_metrics(tasks: Sequence[Task], states: Iterable[PyTree]) -> SplitMetrics:
    """Merges the results of the evaluation step in 64 bits, and computes metrics.

    Args:
      tasks: Tasks of the model.
      states: Result of `make_eval_step`'s function for each batch.

    Returns:
      Task -> mean loss and metrics.

    Raises:
      ValueError: There are no batches.
    """
    total: PyTree = None
    for state in states:
        state = jax.tree.map(_to_64_bits, jax.device_get(state))
        total = state if total is None else _merge(tasks, total, state)
    if total is None:
        raise ValueError("cannot evaluate an empty split")
    result = {}
    for task in tasks:
        (loss, count), metrics = total[task.name]["loss"], total[task.name]["metrics"]
        mean = float(loss / count) if count else float("nan")
        if count and np.isnan(mean):
            mean = float("inf")  # diverged; NaN means that no example carries the label
        result[task.name] = {"loss": mean, **task.metrics.compute(metrics)}
    return result


def _merge(tasks: Sequence[Task], a: PyTree, b: PyTree) -> PyTree:
    return {
        task.name: {
            "loss": tuple(map(operator.add, a[task.name]["loss"], b[task.name]["loss"])),
            "metrics": task.metrics.merge(a[task.name]["metrics"], b[task.name]["metrics"]),
        }
        for task in tasks
    }


def _to_64_bits(x: ArrayLike) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype.kind == "f":
        return x.astype(np.float64)
    return x.astype(np.int64) if x.dtype.kind in "iu" else x


def scalar_metrics(metrics: TaskMetrics) -> dict[str, float]:
    """Selects the metrics that are single numbers."""
    return {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
