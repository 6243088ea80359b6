"""Optimizers of optax by name, with gradient clipping and fine-tuning methods."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import optax
import optax.contrib
from jaxtyping import PyTree

from mtljax.models.layer_depth import StageOf
from mtljax.optim.finetune import (
    add_l2_sp,
    gradual_unfreezing,
    map_paths,
    scale_by_depth,
    scale_by_module,
)
from mtljax.optim.schedules import Plateau, make_schedule
from mtljax.utils.registry import choose


def momentum(
    learning_rate: optax.ScalarOrSchedule, decay: float = 0.9, nesterov: bool = False
) -> optax.GradientTransformation:
    """Gradient descent with momentum."""
    return optax.sgd(learning_rate, decay, nesterov)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": momentum,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "nadamw": optax.nadamw,
    "radam": optax.radam,
    "lamb": optax.lamb,
    "lars": optax.lars,
    "lion": optax.lion,
    "adafactor": optax.adafactor,
    "rmsprop": optax.rmsprop,
    "adagrad": optax.adagrad,
    "muon": optax.contrib.muon,
}
"""Name -> function of the learning rate that returns an optimizer."""

DECAY_MASKS = ("mask", "weight_decay_mask")
"""Arguments of optax optimizers that select the parameters with weight decay."""
NON_LITERAL_ARGUMENTS = (
    *DECAY_MASKS,
    "trust_ratio_mask",
    "mu_dtype",
    "dtype_momentum",
    "accumulator_dtype",
    "muon_weight_dimension_numbers",
)
"""Arguments that are functions, pytrees or types, and have no text form."""


def make_optimizer(
    optimizer: str,
    learning_rate: float,
    schedule: str,
    steps: int,
    *,
    clip_norm: float | None = None,
    decay_biases: bool = False,
    l2_sp: float = 0.0,
    is_pretrained: Callable[[str], bool] = lambda path: True,
    scales: Mapping[str, float] | None = None,
    layer_decay: float = 1.0,
    unfreeze_every: int | None = None,
    stage_of: StageOf = lambda module: None,
) -> optax.GradientTransformation:
    """Optax chain: L2-SP, gradient clipping, optimizer with schedule, then depth-wise methods.

    Args:
      optimizer: Name in `OPTIMIZERS` with its arguments: `adamw:weight_decay=1e-2`.
      learning_rate: Peak learning rate, after warm-up.
      schedule: Name in `SCHEDULES` with its arguments: `cosine:warmup=100`.
      steps: Training steps of the run.
      clip_norm: Maximum global norm of the gradient; None for no clipping.
      decay_biases: Also decay biases and normalization parameters (fewer than two axes).
      l2_sp: Strength of `add_l2_sp`, 0 for none. It replaces weight decay for its parameters.
      is_pretrained: True for paths of the parameters that `l2_sp` applies to.
      scales: Learning-rate multipliers of modules, by name; see `scale_by_module`.
      layer_decay: Decay of `scale_by_depth`; 1 for none.
      unfreeze_every: Updates between two stages of `gradual_unfreezing`; None for no freezing.
      stage_of: Maps modules to trunk stages for the last two; see `Fusion.stage_of`.
    """
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be > 0 and finite, not {learning_rate}")
    rate = make_schedule(schedule, learning_rate, steps)
    hidden = ("learning_rate", *NON_LITERAL_ARGUMENTS)
    optimizer_choice = choose("optimizer", optimizer, OPTIMIZERS, hidden=hidden)
    anchored = is_pretrained if l2_sp else lambda path: False
    masks = {}
    if l2_sp or not decay_biases:
        decays = lambda path, leaf: (decay_biases or leaf.ndim > 1) and not anchored(path)
        arguments = inspect.signature(optimizer_choice.factory).parameters
        masks = {name: _mask(decays) for name in arguments if name in DECAY_MASKS}
    links: list[optax.GradientTransformation] = []
    if l2_sp:
        links.append(optax.masked(add_l2_sp(l2_sp), _mask(lambda path, leaf: anchored(path))))
    if clip_norm is not None:
        if not clip_norm > 0:
            raise ValueError(f"clip_norm must be > 0, not {clip_norm}")
        links.append(optax.clip_by_global_norm(clip_norm))
    links.append(optimizer_choice.build(rate, **masks))
    if scales:
        links.append(scale_by_module(scales))
    if layer_decay != 1:
        links.append(scale_by_depth(layer_decay, stage_of))
    if unfreeze_every is not None:
        links.append(gradual_unfreezing(unfreeze_every, stage_of))
    optimizer_of_run = links[0] if len(links) == 1 else optax.chain(*links)
    return rate.reduces(optimizer_of_run) if isinstance(rate, Plateau) else optimizer_of_run


def _mask(selects: Callable[[str, Any], bool]) -> Callable[[PyTree], PyTree]:
    """Mask for optax from a predicate of path and parameter."""
    select = lambda leaves: {path: selects(path, leaf) for path, leaf in leaves.items()}
    return lambda params: map_paths(select, params)
