"""AdaMerging: coefficients of the task vectors that make the predictions certain."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, PyTree

from mtljax.compilation import compiler_options
from mtljax.merging.base import BINARY, CATEGORICAL, Candidate, Merger, Network, Problem, to_numpy
from mtljax.tasks import MultiLabel, Task

PROBABILISTIC = CATEGORICAL + BINARY
"""Tasks whose outputs are logits of probabilities."""


def adamerging(
    level: Literal["layer", "task"] = "layer",
    steps: int = 500,
    learning_rate: float = 1e-3,
    initial: float = 0.3,
    batch_size: int = 16,
    others: Literal["refuse", "imitate"] = "refuse",
) -> Merger:
    """AdaMerging: task arithmetic with learned coefficients that minimize the entropy.

    The merged parameters are theta_0 + sum_t c_t tau_t with a coefficient in [0, 1] for each task
    vector, or for each of its arrays. Adam minimizes the sum over tasks of the mean entropy of the
    predicted probabilities on unlabelled images of the validation split (the paper's are those of
    the test split, which is not used here).

    Convention: the entropy of a pixel in segmentation and in binary maps, and the sum over classes
    of binary entropies in multi-label classification, which the paper does not have. Outputs
    without probabilities (regression, depth, normals, boxes, points) have no entropy, and the
    method refuses them; `others=imitate` uses instead the task's loss against the predictions of
    its run, which is not part of the paper.

    Args:
      level: Coefficients for each array of parameters (layer), or for each task only.
      steps: Number of updates of the coefficients.
      learning_rate: Learning rate of Adam.
      initial: First value of all coefficients.
      batch_size: Number of images per update.
      others: Objective for tasks without probabilities: refuse them, or imitate their runs.

    References:
      Yang et al., 2023, arXiv:2310.02575
    """
    if steps < 1 or batch_size < 1 or not 0 <= initial <= 1:
        raise ValueError(
            "adamerging: needs steps >= 1, batch_size >= 1 and initial in [0, 1], not "
            f"{steps}, {batch_size}, {initial}"
        )

    def merge(problem: Problem) -> Iterator[Candidate]:
        equal = np.full(len(problem.tuned), initial, np.float32)
        coefficients = dict.fromkeys(problem.start, equal) if level == "layer" else equal
        coefficients = minimize(problem, coefficients, steps, learning_rate, batch_size)
        shared = to_numpy(interpolate(problem.start, problem.task_vectors, coefficients))
        rounded = jax.tree.map(
            lambda x: np.clip(x, 0, 1).astype(np.float64).round(4).tolist(), coefficients
        )
        yield Candidate({"coefficients": rounded}, shared)

    return Merger(merge, require_probabilities if others == "refuse" else lambda tasks: None)


def require_probabilities(tasks: Sequence[Task]) -> None:
    """Raises ValueError for tasks without probabilities."""
    names = [task.name for task in tasks if not isinstance(task, PROBABILISTIC)]
    if names:
        raise ValueError(
            f"adamerging minimizes the entropy of probabilities, which {', '.join(names)} does not "
            "predict; choose another method, or adamerging:others=imitate"
        )


def interpolate(
    start: Mapping[str, Any], vectors: Sequence[Mapping[str, Any]], coefficients: PyTree
) -> dict[str, Any]:
    """Parameters theta_0 + sum_t c_t tau_t, with coefficients [T], or [T] by path."""

    def of_array(path: str, x: Array) -> Array:
        c = coefficients[path] if isinstance(coefficients, Mapping) else coefficients
        return x + sum(jnp.clip(c[t], 0, 1) * vector[path] for t, vector in enumerate(vectors))

    return {path: of_array(path, x) for path, x in start.items()}


def minimize(
    problem: Problem, coefficients: PyTree, steps: int, learning_rate: float, batch_size: int
) -> PyTree:
    """Minimizes the objective over batches of the validation split."""
    assert problem.batches is not None
    assert problem.forward is not None
    forward, networks = problem.forward, problem.networks
    optimizer = optax.adam(learning_rate)
    tasks = [network.task for network in networks]
    teachers = [n for n in networks if not isinstance(n.task, PROBABILISTIC)]

    def update(
        coefficients: PyTree, moments: PyTree, parameters: PyTree, batch: Mapping[str, Any]
    ) -> tuple[PyTree, PyTree]:
        targets = {network.task.name: _prediction(network, batch["image"]) for network in teachers}

        def objective(coefficients: PyTree) -> Float[Array, ""]:
            start, vectors = parameters
            outputs = forward(interpolate(start, vectors, coefficients), batch["image"])
            terms = [
                mean_entropy(task, outputs[task.name], batch["present"][task.name])
                if task.name not in targets
                else _mean_loss(task, outputs[task.name], targets[task.name], batch)
                for task in tasks
            ]
            return jnp.sum(jnp.stack(terms))

        updates, moments = optimizer.update(jax.grad(objective)(coefficients), moments)
        return optax.apply_updates(coefficients, updates), moments

    step = jax.jit(update, compiler_options=compiler_options())
    moments, parameters = optimizer.init(coefficients), (problem.start, problem.task_vectors)
    for batch in problem.batches("validation", batch_size, steps):
        coefficients, moments = step(coefficients, moments, parameters, batch)
    return jax.device_get(coefficients)


def mean_entropy(task: Task, output: Array, present: Bool[Array, " B"]) -> Float[Array, ""]:
    """Mean entropy of the predicted probabilities over the images (and pixels) of a task."""
    if isinstance(task, CATEGORICAL):
        log = jax.nn.log_softmax(output)
        entropy = -(jnp.exp(log) * log).sum(-1)
    else:
        p, log, log_not = (f(output) for f in (jax.nn.sigmoid, jax.nn.log_sigmoid, _log_not))
        entropy = -(p * log + (1 - p) * log_not)
        entropy = entropy.sum(-1) if isinstance(task, MultiLabel) else entropy
    of_image = entropy.reshape(len(entropy), -1).mean(-1)
    return jnp.where(present, of_image, 0.0).sum() / jnp.maximum(present.sum(), 1)


def _log_not(x: Array) -> Array:
    return jax.nn.log_sigmoid(-x)


def _prediction(network: Network, image: PyTree) -> PyTree:
    output = network.model.apply(network.variables, image, train=False)[network.task.name]
    return jax.lax.stop_gradient(network.task.decode(output))


def _mean_loss(
    task: Task, output: PyTree, label: PyTree, batch: Mapping[str, Any]
) -> Float[Array, ""]:
    total, count = task.loss(output, label, batch["present"][task.name])
    return total / jnp.maximum(count, 1)
