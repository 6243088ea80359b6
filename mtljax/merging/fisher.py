"""Fisher merging: averages weighted by the diagonal of the Fisher information."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from mtljax.compilation import compiler_options
from mtljax.merging.base import (
    BINARY,
    CATEGORICAL,
    Batches,
    Candidate,
    Merger,
    Network,
    Parameters,
    Problem,
    to_numpy,
)
from mtljax.models.partition import join, partition


def fisher(examples: int = 256, normalize: bool = True, floor: float = 1e-6) -> Merger:
    """Fisher merging: each parameter is averaged with the runs' Fisher information as weights.

    The merged parameters are sum_t c_t (F_t + floor) theta_t / sum_t c_t (F_t + floor), where F_t
    is the diagonal of the Fisher information of run t, the mean over training images x of
    E_y (d log p(y | x) / d theta)^2 with y ~ p(y | x), and c_t is 1, or 1 / (|F_t| + floor).

    Convention: y is one sample of the network's probabilities per image, or per pixel, for
    class, multi-label and binary tasks (official code: the exact expectation over classes). Other
    losses are not those of probabilities, so that y is the label and log p is minus the loss, as
    in FusionBench for regression: the empirical Fisher information.

    Args:
      examples: Number of training images per run.
      normalize: Divide each F_t by its norm, so that no task dominates by the scale of its loss.
      floor: Added to the Fisher information, whose exact zeros would leave 0 / 0.

    References:
      Matena and Raffel, 2021, arXiv:2111.09832
    """
    if examples < 1 or not floor > 0:
        raise ValueError(f"fisher: needs examples >= 1 and floor > 0, not {examples}, {floor}")

    def merge(problem: Problem) -> Iterator[Candidate]:
        assert problem.batches is not None
        diagonals = [
            fisher_diagonal(network, problem.batches, examples, problem.seed)
            for network in problem.networks
        ]
        yield Candidate({}, fisher_average(problem.tuned, diagonals, normalize, floor))

    return Merger(merge)


def fisher_average(
    tuned: Sequence[Parameters], diagonals: Sequence[Parameters], normalize: bool, floor: float
) -> dict[str, np.ndarray]:
    """Averages parameters with Fisher information as weights."""
    weights = [1.0] * len(tuned)
    if normalize:
        square = lambda x: np.square(x, dtype=np.float64).sum()
        norms = [np.sqrt(sum(map(square, diagonal.values()))) for diagonal in diagonals]
        weights = [1 / (norm + floor) for norm in norms]
    merged = {}
    for path, x in tuned[0].items():
        pairs = zip(weights, diagonals, strict=True)
        importance = np.stack([c * (d[path].astype(np.float64) + floor) for c, d in pairs])
        values = np.stack([run[path] for run in tuned])
        merged[path] = ((importance * values).sum(0) / importance.sum(0)).astype(x.dtype)
    return merged


def fisher_diagonal(
    network: Network, batches: Batches, examples: int, seed: int
) -> dict[str, np.ndarray]:
    """Estimates the diagonal of the Fisher information of the shared parameters.

    One example at a time: the square of a gradient is not the gradient of anything that a batch
    could share. Examples without a label of the task are left out.
    """
    task, model, variables = network
    shared, specific = partition(variables["params"])
    state = {name: x for name, x in variables.items() if name != "params"}

    def add(total: PyTree, batch: Mapping[str, Any], key: Array) -> PyTree:
        def log_probability(shared: Mapping[str, Array]) -> Float[Array, ""]:
            variables = {"params": join(dict(shared), specific), **state}
            output = model.apply(variables, batch["image"], train=False)[task.name]
            return sampled_log_probability(task, output, batch, key)

        gradient = jax.grad(log_probability)(shared)
        return jax.tree.map(lambda x, g: x + g**2, total, gradient)

    step = jax.jit(add, donate_argnums=0, compiler_options=compiler_options())
    total, count = jax.tree.map(jnp.zeros_like, shared), 0
    for index, batch in enumerate(batches("train", 1, examples)):
        if batch["present"][task.name].any():
            total = step(total, batch, jax.random.fold_in(jax.random.key(seed), index))
            count += 1
    return to_numpy(jax.tree.map(lambda x: x / max(count, 1), total))


def sampled_log_probability(
    task: Any, output: Array, batch: Mapping[str, Any], key: Array
) -> Float[Array, ""]:
    """Log probability of labels drawn from the network's probabilities.

    Minus the loss of the labels of the batch for a task without probabilities.
    """
    if isinstance(task, CATEGORICAL):
        label = jax.lax.stop_gradient(jax.random.categorical(key, output))
        chosen = jax.nn.one_hot(label, output.shape[-1])
        return (chosen * jax.nn.log_softmax(output)).sum()
    if isinstance(task, BINARY):
        probability = jax.lax.stop_gradient(jax.nn.sigmoid(output))
        sign = jnp.where(jax.random.bernoulli(key, probability), 1.0, -1.0)
        return jax.nn.log_sigmoid(sign * output).sum()
    return -task.loss(output, batch["labels"][task.name], batch["present"][task.name])[0]
