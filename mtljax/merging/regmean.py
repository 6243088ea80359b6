"""RegMean: merged linear layers whose outputs are nearest to those of the runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy  # subpackages are imported on first use, which keeps start-up fast
from jaxtyping import Array, Bool, Float, PyTree

from mtljax.compilation import compiler_options
from mtljax.merging.base import Batches, Candidate, Merger, Network, Parameters, Problem, mean
from mtljax.models.partition import task_of

Grams = Mapping[str, np.ndarray]
"""Kernel -> Gram matrix of the inputs that it multiplies, mean over examples and positions."""
RIDGE = 1e-9
"""Share of the mean diagonal added to a Gram matrix, which has zeros for inputs that are always 0;
their weights become those of the average."""


def regmean(examples: int = 256, alpha: float = 0.9) -> Merger:
    """RegMean: linear layers by regression on the outputs of the runs, the rest by averaging.

    With the inputs X_t of a layer in run t on training images and G_t = X_t^T X_t, the merged
    kernel is (sum_t H_t)^-1 sum_t H_t W_t, where H_t is G_t with off-diagonal entries times
    `alpha`: for alpha = 1 the minimum of sum_t |X_t W - X_t W_t|^2.

    Convention: G_t is a mean over positions and images with a label of the task. Also for
    convolutions, whose inputs are the patches under the kernel (official code: linear layers only).
    Layers with groups or dilated inputs, biases and all other parameters are averaged.

    Args:
      examples: Number of training images per run.
      alpha: Factor of the off-diagonal entries, in [0, 1]; 0.9 is the paper's value for most models
        (FusionBench: 0.6).

    References:
      Jin et al., 2022, arXiv:2212.09849
    """
    if examples < 1 or not 0 <= alpha <= 1:
        raise ValueError(
            f"regmean: needs examples >= 1 and alpha in [0, 1], not {examples}, {alpha}"
        )

    def merge(problem: Problem) -> Iterator[Candidate]:
        assert problem.batches is not None
        grams = [read_grams(n, problem.batches, examples) for n in problem.networks]
        yield Candidate({}, regression_mean(problem.tuned, grams, alpha))

    return Merger(merge)


def regression_mean(
    tuned: Sequence[Parameters], grams: Sequence[Grams], alpha: float
) -> dict[str, np.ndarray]:
    """Merges the kernels that have Gram matrices by regression, and averages the rest.

    Solves for the difference from the average, in float64.
    """
    merged = mean(tuned)
    for path in grams[0]:
        average = merged[path].astype(np.float64)
        size = len(grams[0][path])
        total, right = np.zeros((size, size)), np.zeros((size, average.size // size))
        for run, of_run in zip(tuned, grams, strict=True):
            gram = of_run[path].astype(np.float64)
            gram = alpha * gram + (1 - alpha) * np.diag(np.diag(gram))
            total += gram
            right += gram @ (run[path] - average).reshape(size, -1)
        total += RIDGE * (np.trace(total) / size or 1.0) * np.eye(size)
        change = scipy.linalg.solve(total, right, assume_a="pos")
        merged[path] = (average + change.reshape(average.shape)).astype(merged[path].dtype)
    return merged


def read_grams(network: Network, batches: Batches, examples: int, size: int = 16) -> Grams:
    """Computes the Gram matrices of the inputs of the shared layers of a network."""
    task, model, variables = network

    def of_batch(image: PyTree, present: Bool[Array, " B"]) -> dict[str, Array]:
        grams: dict[str, Array] = {}
        with nn.intercept_methods(_recorder(grams, present)):
            model.apply(variables, image, train=False)
        return grams

    of_batch = jax.jit(of_batch, compiler_options=compiler_options())
    size, total = min(size, examples), None
    for batch in batches("train", size, -(-examples // size)):
        grams = jax.device_get(of_batch(batch["image"], batch["present"][task.name]))
        grams = {path: x.astype(np.float64) for path, x in grams.items()}
        total = grams if total is None else {path: x + grams[path] for path, x in total.items()}
    return {path: x[1:] / max(x[0, 0], 1.0) for path, x in (total or {}).items()}


def _recorder(grams: dict[str, Array], present: Bool[Array, " B"]) -> Callable[..., Any]:
    """Interceptor of methods that adds up the Gram matrices of the layers that are called."""

    def record(
        next_fun: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any
    ) -> Any:
        module = context.module
        if context.method_name == "__call__":
            inputs = layer_inputs(module, args[0]) if args else None
            path = "/".join((*module.path, "kernel"))
            if inputs is not None and task_of(path) is None:
                grams[path] = grams.get(path, 0.0) + _gram(inputs, present)
        return next_fun(*args, **kwargs)

    return record


def _gram(inputs: Float[Array, "B ... D"], present: Bool[Array, " B"]) -> Float[Array, "_ D"]:
    """Gram matrix of the inputs below a row with the number of inputs, which are summed too."""
    mask = present.reshape(-1, *(1,) * (inputs.ndim - 1))
    rows = jnp.where(mask, inputs, 0.0).reshape(-1, inputs.shape[-1]).astype(jnp.float32)
    count = present.sum() * (rows.shape[0] // len(present))
    gram = jnp.matmul(rows.T, rows, precision="highest")
    return jnp.concatenate([jnp.full((1, rows.shape[1]), count, gram.dtype), gram])


def layer_inputs(module: nn.Module, x: Array) -> Float[Array, "B ... D"] | None:
    """Vectors that the kernel of a layer multiplies, as [D, outputs]; None for other modules."""
    if isinstance(module, nn.Dense):
        return x
    if isinstance(module, nn.DenseGeneral):
        axes = (module.axis,) if isinstance(module.axis, int) else tuple(module.axis)
        if module.batch_dims or sorted(a % x.ndim for a in axes) != list(
            range(x.ndim - len(axes), x.ndim)
        ):
            return None
        return x.reshape(*x.shape[: x.ndim - len(axes)], -1)
    if isinstance(module, nn.Conv):
        return _patches(module, x)
    return None


def _patches(conv: nn.Conv, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"] | None:
    """Patches under the kernel of a convolution, in the order of its axes."""
    pair = lambda value: (value, value) if isinstance(value, int) else tuple(value or (1, 1))
    size, strides, dilation = map(pair, (conv.kernel_size, conv.strides, conv.kernel_dilation))
    is_plain = conv.feature_group_count == 1 and pair(conv.input_dilation) == (1, 1)
    if x.ndim != 4 or len(size) != 2 or not is_plain or conv.padding in ("CIRCULAR", "CAUSAL"):
        return None
    extent = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    if isinstance(conv.padding, str):
        pads = jax.lax.padtype_to_pads(x.shape[1:3], extent, strides, conv.padding)
    else:
        pads = [pair(p) for p in pair(conv.padding)]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    out = [(n - e) // s + 1 for n, e, s in zip(x.shape[1:3], extent, strides, strict=True)]
    window = lambda axis, i: slice(
        i * dilation[axis], i * dilation[axis] + (out[axis] - 1) * strides[axis] + 1, strides[axis]
    )
    parts = [x[:, window(0, i), window(1, j)] for i in range(size[0]) for j in range(size[1])]
    return jnp.concatenate(parts, -1)
