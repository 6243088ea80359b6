"""Optimizers and learning-rate schedules by name. All of them are optax's."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import optax
import optax.contrib
from jaxtyping import PyTree

from mtljax.models.layer_depth import StageOf
from mtljax.optim.finetune import add_l2_sp, map_by_path, scale_by_depth, unfreeze
from mtljax.utils.registry import choose


def momentum(learning_rate: Any, decay: float = 0.9, nesterov: bool = False):
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


DECAY_MASKS = ("mask", "weight_decay_mask")
"""Arguments of optax's optimizers that say which parameters decay."""
NON_LITERAL_ARGUMENTS = (
    *DECAY_MASKS,
    "trust_ratio_mask",
    "mu_dtype",
    "dtype_momentum",
    "accumulator_dtype",
    "muon_weight_dimension_numbers",
)
"""Arguments that are functions, pytrees or types, which nobody can write on a command line."""


def constant(peak: float, steps: int, warmup: int = 0) -> optax.Schedule:
    """The same learning rate all the time, after `warmup` steps of rising to it."""
    del steps
    return _after_warmup(peak, warmup, optax.constant_schedule(peak))


def cosine(peak: float, steps: int, warmup: int = 0, end: float = 0.0) -> optax.Schedule:
    """Half a cosine from the learning rate down to `end` times it, after `warmup` steps."""
    decay = optax.cosine_decay_schedule(peak, max(1, steps - warmup), end)
    return _after_warmup(peak, warmup, decay)


def linear(peak: float, steps: int, warmup: int = 0, end: float = 0.0) -> optax.Schedule:
    """A straight line from the learning rate down to `end` times it, after `warmup` steps."""
    decay = optax.linear_schedule(peak, end * peak, max(1, steps - warmup))
    return _after_warmup(peak, warmup, decay)


def step(peak: float, steps: int, warmup: int = 0, every: int = 0, factor: float = 0.5):
    """The learning rate times `factor` after each `every` steps (a third of the run if 0)."""
    if every < 0:
        raise ValueError(f"every must be >= 0 steps, not {every}")
    every = every or max(1, steps // 3)
    decay = optax.exponential_decay(peak, every, factor, staircase=True)
    return _after_warmup(peak, warmup, decay)


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "step": step,
}


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
    layer_decay: float = 1.0,
    unfreeze_every: int | None = None,
    stage_of: StageOf = lambda module: None,
) -> optax.GradientTransformation:
    """An optax chain: clip the norm of the whole gradient, then the optimizer on its schedule.

    Of what is for fine-tuning, L2-SP comes before that, for it belongs to the loss; the rest comes
    after it.

    Args:
      optimizer: A name of `OPTIMIZERS` and its arguments: `adamw:weight_decay=1e-2`.
      learning_rate: The highest, after warm-up.
      schedule: A name of `SCHEDULES` and its arguments: `cosine:warmup=100`.
      steps: Of the whole run.
      clip_norm: Longest gradient that is let through as it is; None: any.
      decay_biases: Also apply weight decay to biases and normalisation parameters (those with
        fewer than two axes), which are otherwise left alone.
      l2_sp: Strength of `add_l2_sp`, 0 for none. What it pulls does not decay besides.
      is_pretrained: Whether a parameter, by its path, is_pretrained from something that l2_sp pulls it to.
      layer_decay: See `scale_by_depth`; 1 for none.
      unfreeze_every: See `unfreeze`; None for not at all.
      stage_of: Of the model's fusion; what the last two go by.

    Raises:
      ValueError: A name or number that cannot be.
    """
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be > 0 and finite, not {learning_rate}")
    plan = choose("schedule", schedule, SCHEDULES, hidden=("peak", "steps"))
    rule = choose(
        "optimizer", optimizer, OPTIMIZERS, hidden=("learning_rate", *NON_LITERAL_ARGUMENTS)
    )
    known = inspect.signature(rule.make).parameters
    pulled = is_pretrained if l2_sp else lambda path: False
    decays = lambda path, leaf: (decay_biases or leaf.ndim > 1) and not pulled(path)
    all_decay = decay_biases and not l2_sp
    masks = {} if all_decay else {name: _mask(decays) for name in known if name in DECAY_MASKS}
    links: list[optax.GradientTransformation] = []
    if l2_sp:
        links.append(optax.masked(add_l2_sp(l2_sp), _mask(lambda path, leaf: pulled(path))))
    if clip_norm is not None:
        if not clip_norm > 0:
            raise ValueError(f"clip_norm must be > 0, not {clip_norm}")
        links.append(optax.clip_by_global_norm(clip_norm))
    links.append(rule.made(plan.made(learning_rate, steps), **masks))
    if layer_decay != 1:
        links.append(scale_by_depth(layer_decay, stage_of))
    if unfreeze_every is not None:
        links.append(unfreeze(unfreeze_every, stage_of))
    return links[0] if len(links) == 1 else optax.chain(*links)


def _mask(chosen: Callable[[str, Any], bool]) -> Callable[[PyTree], PyTree]:
    """What optax takes for a choice of parameters, from one by path and leaf."""
    of_all = lambda flat: {path: chosen(path, leaf) for path, leaf in flat.items()}
    return lambda params: map_by_path(of_all, params)


def _after_warmup(peak: float, warmup: int, then: optax.Schedule) -> optax.Schedule:
    if warmup < 0:
        raise ValueError(f"warmup must be >= 0 steps, not {warmup}")
    if not warmup:
        return then
    # The first step already moves: a learning rate of 0 would waste it.
    rise = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
    return optax.join_schedules([rise, then], [warmup])
