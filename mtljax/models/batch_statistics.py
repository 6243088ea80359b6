"""Running statistics of batch normalization: frozen, or averaged over recent training batches."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int

WARM_UP = 9
"""The window of the average is at most (updates + WARM_UP) / WARM_UP batches."""


@contextlib.contextmanager
def frozen_statistics() -> Iterator[None]:
    """Context in which batch normalization uses its running statistics and does not update them.

    It applies in training mode too, so that fine-tuning can preserve pretrained statistics.
    """
    with nn.intercept_methods(_use_running_average):
        yield


@contextlib.contextmanager
def warmed_up_statistics(updates: Int[Array, ""], *, microbatches: int = 1) -> Iterator[None]:
    """Context in which the running statistics of batch normalization do not contain initial values.

    The first batch replaces the initial statistics (mean 0, variance 1), and the average over later
    batches grows to the window of the layer's `momentum`: its decay is min(momentum, n / (n + 9))
    after n updates, the rule of `ema` shifted by one update. With a constant decay of 0.99, 12 % of
    the statistics after 208 updates would still be the initial values.

    Args:
      updates: Number of updates taken before.
      microbatches: Number of forward passes per update, so that the window is counted in updates.
    """
    limit = updates / (updates + WARM_UP)

    def average(
        next_fun: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any
    ) -> Any:
        if _is_batch_norm(context):
            decay = jnp.minimum(context.module.momentum, limit)
            _replace(context.module, "momentum", decay ** (1 / microbatches))
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(average):
        yield


@contextlib.contextmanager
def cumulative_statistics(batches: Int[Array, ""] | int) -> Iterator[None]:
    """Context in which batch normalization uses the statistics of the batch, also in evaluation.

    The running statistics become their mean over all batches, if the collection is mutable. This
    estimates them again for a network whose parameters were not trained, such as an average.

    Args:
      batches: Number of batches before this one.
    """

    def normalize(
        next_fun: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any
    ) -> Any:
        if _is_batch_norm(context):
            _replace(context.module, "momentum", batches / (batches + 1))
            args, kwargs = _with_running_average(context.module, False, args, kwargs)
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(normalize):
        yield


def _use_running_average(
    next_fun: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any
) -> Any:
    if _is_batch_norm(context):
        args, kwargs = _with_running_average(context.module, True, args, kwargs)
    return next_fun(*args, **kwargs)


def _with_running_average(
    module: nn.Module, value: bool, args: tuple, kwargs: dict[str, Any]
) -> tuple[tuple, dict[str, Any]]:
    """Sets `use_running_average` of a module; returns the arguments of its call without it."""
    _replace(module, "use_running_average", value)
    return args[:1], {k: x for k, x in kwargs.items() if k != "use_running_average"}


def _is_batch_norm(context: Any) -> bool:
    return isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__"


def _replace(module: nn.Module, field: str, value: Any) -> None:
    """Sets a field of a module, which is a copy created for one call."""
    object.__setattr__(module, field, value)
