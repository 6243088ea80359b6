"""Losses of class logits with class weights, focal factor, label smoothing and Dice term.

For logits z of one image or pixel, p = softmax(z), target t (one-hot, or a mixture), class weights
w (default 1), gamma g (`focal`) and smoothing e, with s = (1 - e) t + e / C:

    loss = -sum_c w_c s_c (1 - p_c)^g ln p_c      weight = sum_c w_c t_c

The mean loss of a batch or a data set is the sum of losses over the sum of weights,

as `torch.nn.functional.cross_entropy(z, class, w, label_smoothing=e)` for g = 0. `balanced`
weights are N / (C n_c) for N labels, of which n_c have class c, as in scikit-learn.

References:
  Lin et al., 2017, arXiv:1708.02002, for the focal loss; Milletari et al., 2016, arXiv:1606.04797,
  for the Dice loss
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from mtljax.tasks import checks
from mtljax.tasks.base import Task
from mtljax.tasks.classes import ClassTask
from mtljax.tasks.scaled import rounded

Weights = tuple[float, ...] | Literal["balanced"]
"""A positive number for each class, () for equal weights, or `balanced`, computed from labels."""
TINY = 1e-7
"""Lower limit of 1 - p in the focal factor, whose gradient is infinite at 0 for g < 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftmaxTask(ClassTask):
    """Task with one class per image or pixel, whose logits have the losses of this module.

    The validation and test loss includes these options: compare losses only between equal settings.
    Metrics do not depend on them.
    """

    class_weights: Weights = ()
    """Weight of each class in the loss, such as 1 5; `balanced`: N / (C n_c) for n_c of N training
    labels in one of C classes. Empty: all labels count equally."""
    focal: float = 0.0
    """Exponent g of the focal loss, such as 2: a label of predicted probability p counts with the
    factor (1 - p)^g. 0 is cross entropy."""
    label_smoothing: float = 0.0
    """Fraction of the target that is spread uniformly over the classes, in [0, 1). The validation
    and test loss includes it: compare losses only between equal settings."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights(self, "class_weights")
        checks.require_setting(self, "focal", 0 <= self.focal < np.inf, ">= 0")
        checks.require_setting(self, "label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)")

    @property
    def derived(self) -> tuple[str, ...]:
        balanced = ("class_weights",) if self.class_weights == "balanced" else ()
        return (*super().derived, *balanced)

    def resolve(self, labels: Any) -> Self:
        task = super().resolve(labels)
        if self.class_weights != "balanced":
            return task
        weights = balanced_weights(class_counts(task, labels))
        return dataclasses.replace(task, class_weights=weights)

    @property
    def loss_settings(self) -> "ClassLoss":
        """Settings for `softmax_losses`."""
        weights = given_weights(self, "class_weights")
        return ClassLoss(weights, self.focal, self.label_smoothing)


def check_weights(task: Any, field: str) -> None:
    """Raises ValueError unless a field has a positive weight for each class, or is `balanced`."""
    weights, count = getattr(task, field), task.num_classes
    if isinstance(weights, str):
        checks.require_setting(task, field, weights == "balanced", "numbers or 'balanced'")
    elif weights:
        positive = all(0 < x < np.inf for x in weights)
        complete = count in (0, len(weights))
        of_classes = f", one for each of {count} classes" if count else ""
        checks.require_setting(task, field, positive and complete, f"numbers > 0{of_classes}")


def given_weights(task: Task, field: str) -> tuple[float, ...]:
    """Returns the weights of a resolved task."""
    weights = getattr(task, field)
    if isinstance(weights, str):
        raise ValueError(
            f"task {task.name!r}: {field}={weights!r} is computed from the training labels; call "
            "task.resolve(labels) first"
        )
    return weights


def class_counts(task: ClassTask, labels: Any) -> Int[np.ndarray, " C"]:
    """Returns the number of labels, or pixels, of each class."""
    classes = np.ravel(task.label_values(labels)).astype(np.int64)
    return np.bincount(classes, minlength=task.num_classes)


@dataclasses.dataclass(frozen=True)
class ClassLoss:
    """Settings of `softmax_losses` and `sigmoid_losses`; by default plain cross entropy."""

    weights: Sequence[float] = ()
    """Weight of each class, of its positive labels in `sigmoid_losses`; empty: 1."""
    focal: float = 0.0
    """Exponent of the focal loss; 0: none."""
    smoothing: float = 0.0
    """Fraction of the target that is spread over the classes; not for sigmoids."""


def softmax_losses(
    logits: Float[Array, "*n C"], target: Float[Array, "*n C"], settings: ClassLoss
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Returns the loss of each item and its weight in the mean; see the top of the module."""
    log = jax.nn.log_softmax(logits)
    smooth = target
    if settings.smoothing:
        smooth = (1 - settings.smoothing) * target + settings.smoothing / logits.shape[-1]
    terms = -smooth * log
    if settings.focal:
        terms = terms * jnp.maximum(-jnp.expm1(log), TINY) ** settings.focal
    if not settings.weights:
        return terms.sum(-1), target.sum(-1)
    weights = jnp.asarray(settings.weights, logits.dtype)
    return (terms * weights).sum(-1), (target * weights).sum(-1)


def sigmoid_losses(
    logits: Float[Array, "*n C"], target: Float[Array, "*n C"], settings: ClassLoss
) -> Float[Array, "*n C"]:
    """Returns the loss of each class, -w t (1 - p)^g ln p - (1 - t) p^g ln(1 - p).

    The weights are those of the positives, as `pos_weight` of PyTorch's BCEWithLogitsLoss.
    """
    positive, negative = target * jax.nn.softplus(-logits), (1 - target) * jax.nn.softplus(logits)
    if settings.focal:
        positive *= jnp.maximum(jax.nn.sigmoid(-logits), TINY) ** settings.focal
        negative *= jnp.maximum(jax.nn.sigmoid(logits), TINY) ** settings.focal
    if settings.weights:
        positive *= jnp.asarray(settings.weights, logits.dtype)
    return positive + negative


def dice_losses(
    logits: Float[Array, "B *size C"],
    target: Float[Array, "B *size C"],
    mask: Bool[Array, "B *size"],
) -> Float[Array, " B"]:
    """Returns the Dice loss of each image, 0 without labeled pixels.

    1 - 2 sum p t / (sum p^2 + sum t^2) over the labeled pixels of an image, its mean over the
    classes that occur in them: a class that does not occur has no gradient.
    """
    flat = lambda x: jnp.where(mask[..., None], x, 0.0).reshape(x.shape[0], -1, x.shape[-1])
    p, t = flat(jax.nn.softmax(logits)), flat(target)
    size = (p**2).sum(1) + (t**2).sum(1)
    occurs = t.sum(1) > 0
    overlap = jnp.where(occurs, 2 * (p * t).sum(1) / jnp.where(occurs, size, 1.0), 0.0)
    count = occurs.sum(-1).astype(logits.dtype)
    return jnp.where(count > 0, 1 - overlap.sum(-1) / jnp.maximum(count, 1), 0.0)


def balanced_weights(counts: ArrayLike) -> tuple[float, ...]:
    """Returns the weight N / (C n_c) of each class; 1 for a class without labels.

    C is the number of classes with labels, so that the mean weight of the labels is 1.
    """
    n = np.asarray(counts, np.float64)
    occurs = n > 0
    weights = np.where(occurs, n.sum() / (max(occurs.sum(), 1) * np.maximum(n, 1)), 1.0)
    return rounded(weights)


def balanced_positive_weights(positives: ArrayLike, negatives: ArrayLike) -> tuple[float, ...]:
    """Returns the weight negatives / positives of each class; 1 without either of them."""
    pairs = zip(np.ravel(positives), np.ravel(negatives), strict=True)
    return tuple(rounded(n / p) if n and p else 1.0 for p, n in pairs)
