"""Adversarial attacks: the change of an image, too small to matter, that raises a loss the most.

They know the network (white box) and may change every pixel by at most `eps`. What they raise is
the loss of one task, or that of all of them.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.step.axis import Axis
from mtljax.tasks.base import Task


@dataclasses.dataclass(frozen=True)
class Attack:
    """Steps uphill along the sign of the gradient, within `eps` of the image in every pixel.

    Attributes:
      eps: Largest change of a pixel, as a share of the way from black to white.
      steps: How often the gradient is taken.
      size: How far each step goes, in the unit of `eps`.
      random: Start somewhere within `eps`, not at the image itself.
      low, high: Black and white in the unit of the images, which are kept between them.
    """

    eps: float
    steps: int
    size: float
    random: bool
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self):
        if not 0 <= self.eps <= 1:
            raise ValueError(
                f"eps must be in [0, 1], a share of the way from black to white, not {self.eps}"
            )
        if self.steps < 1:
            raise ValueError(f"an attack needs steps >= 1, not {self.steps}")

    def __call__(
        self,
        loss: Callable[[Float[Array, "B H W C"]], Array],
        image: Array,
        keys: jax.Array,
    ) -> Float[Array, "B H W C"]:
        """The images, changed so that the loss rises.

        Args:
          loss: Images -> a sum over them, so that its gradient is each image's own.
          image: [B, H, W, C], floating or uint8.
          keys: A key for each, [B].
        """
        image = image.astype(jnp.float32)
        eps, size = self.eps * (self.high - self.low), self.size * (self.high - self.low)

        def within(changed: Array) -> Array:
            near = jnp.clip(changed, image - eps, image + eps)
            return jnp.clip(near, jnp.minimum(image, self.low), jnp.maximum(image, self.high))

        changed = image
        if self.random:
            draw = lambda key: jax.random.uniform(key, image.shape[1:], minval=-eps, maxval=eps)
            changed = within(image + jax.vmap(draw)(keys))
        for _ in range(self.steps):  # no lax.scan: convolutions in one are slow on CPUs
            changed = within(changed + size * jnp.sign(jax.grad(loss)(changed)))
        return jax.lax.stop_gradient(changed)


def fgsm(eps: float) -> Attack:
    """One step along the sign of the gradient (fast gradient sign method).

    Args:
      eps: Largest change of a pixel, as a share of the way from black to white.

    References:
      Goodfellow et al., 2014, arXiv:1412.6572
    """
    return Attack(eps=eps, steps=1, size=eps, random=False)


def pgd(eps: float, steps: int = 10, random: bool = True) -> Attack:
    """Several smaller steps, from a random start (projected gradient descent).

    Each is 2.5 eps / steps long, so that the far side is reached from anywhere.

    Args:
      eps: Largest change of a pixel, as a share of the way from black to white.
      steps: How often the gradient is taken.
      random: Start somewhere within eps, not at the image itself.

    References:
      Madry et al., 2017, arXiv:1706.06083
    """
    return Attack(eps=eps, steps=steps, size=2.5 * eps / max(steps, 1), random=random)


ATTACKS: dict[str, Callable[..., Attack]] = {"fgsm": fgsm, "pgd": pgd}
"""Name -> function of `eps` and its own arguments that makes an `Attack`."""


def attacked(
    attack: Attack,
    tasks: Sequence[Task],
    outputs: Callable[[Array], Mapping[str, Any]],
    batch: Mapping[str, Any],
    keys: jax.Array,
    axis: Axis | None = None,
) -> dict[str, Any]:
    """The batch with its images attacked, to raise the mean losses of some tasks together.

    Args:
      attack: One of `ATTACKS`, made.
      tasks: Whose losses.
      outputs: Images -> {task: output}.
      batch: `{"image", "labels", "present"}`; what is absent adds nothing.
      keys: A key for each example, [B].
      axis: What the batch is spread over.
    """
    axis = axis or Axis()

    def loss(image: Array) -> Array:
        found, total = outputs(image), jnp.zeros(())
        for task in tasks:
            label, present = batch["labels"][task.name], batch["present"][task.name]
            summed, count = task.loss(found[task.name], label, present)
            total += summed / jnp.maximum(axis.total(jax.lax.stop_gradient(count)), 1)
        return total

    return {**batch, "image": attack(loss, batch["image"], keys)}
