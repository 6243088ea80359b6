"""White-box adversarial attacks: small changes of an image that increase the loss of its tasks."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PyTree

from mtljax.step.axis import Axis
from mtljax.step.objective import Batch
from mtljax.tasks.base import Task
from mtljax.utils.registry import choose


@dataclasses.dataclass(frozen=True)
class Attack:
    """Gradient sign ascent within a distance of `eps` from the image in every pixel.

    Attributes:
      eps: Largest change of a pixel, as a fraction of the range from black to white.
      steps: Number of gradient steps.
      size: Size of each step, in the unit of `eps`.
      random: Start from a random point within `eps`, not from the image.
      low: Smallest value of a pixel, black.
      high: Largest value of a pixel, white.
    """

    eps: float
    steps: int
    size: float
    random: bool
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eps <= 1:
            unit = "a fraction of the range from black to white"
            raise ValueError(f"eps must be in [0, 1], {unit}, not {self.eps}")
        if self.steps < 1:
            raise ValueError(f"an attack needs steps >= 1, not {self.steps}")

    def __call__(
        self,
        loss: Callable[[Float[Array, "B H W C"]], Float[Array, ""]],
        image: Num[Array, "B H W C"],
        keys: jax.Array,
    ) -> Float[Array, "B H W C"]:
        """Returns images with a higher `loss`, which is summed over examples; `keys` [B]."""
        image = image.astype(jnp.float32)
        eps, size = self.eps * (self.high - self.low), self.size * (self.high - self.low)

        def project(changed: Array) -> Array:
            near = jnp.clip(changed, image - eps, image + eps)
            return jnp.clip(near, jnp.minimum(image, self.low), jnp.maximum(image, self.high))

        changed = image
        if self.random:
            draw = lambda key: jax.random.uniform(key, image.shape[1:], minval=-eps, maxval=eps)
            changed = project(image + jax.vmap(draw)(keys))
        for _ in range(self.steps):  # no lax.scan: `nn.Conv` in a loop is slow on CPU
            changed = project(changed + size * jnp.sign(jax.grad(loss)(changed)))
        return jax.lax.stop_gradient(changed)


def fgsm(eps: float) -> Attack:
    """Fast gradient sign method: one step.

    Args:
      eps: Largest change of a pixel, as a fraction of the range from black to white.

    References:
      Goodfellow et al., 2014, arXiv:1412.6572
    """
    return Attack(eps=eps, steps=1, size=eps, random=False)


def pgd(eps: float, steps: int = 10, random: bool = True) -> Attack:
    """Projected gradient descent: several steps of size 2.5 eps / steps from a random start.

    For the arguments see `Attack`.

    References:
      Madry et al., 2017, arXiv:1706.06083
    """
    return Attack(eps=eps, steps=steps, size=2.5 * eps / max(steps, 1), random=random)


ATTACKS: dict[str, Callable[..., Attack]] = {"fgsm": fgsm, "pgd": pgd}
"""Attacks by name: functions of `eps` and further arguments."""


def make_attack(
    text: str | None, low: float, high: float, eps: float | None = None
) -> Attack | None:
    """Creates an attack on images in low..high from text such as `pgd:eps=0.03,steps=7`, if any.

    If `eps` is an argument of this function, the text must not contain it.

    Raises:
      ValueError: The name or an argument is unknown, or `eps` is missing.
    """
    if text is None:
        return None
    arguments = {} if eps is None else {"eps": eps}
    choice = choose("attack", text, ATTACKS, hidden=tuple(arguments))
    return dataclasses.replace(choice.build(**arguments), low=low, high=high)


def attack_batch(
    attack: Attack,
    tasks: Sequence[Task],
    predict: Callable[[Array], Mapping[str, PyTree]],
    batch: Batch,
    keys: jax.Array,
    axis: Axis | None = None,
) -> dict[str, PyTree]:
    """Returns the batch with its images attacked to increase the sum of the mean losses of tasks.

    `predict` maps images to {task: output}; `keys` [B] has a key per example; `axis` is the axis
    over which the batch is sharded. Absent labels have no effect.
    """
    axis = axis or Axis()
    if not hasattr(batch["image"], "ndim"):
        raise ValueError(
            "an attack changes one array of images, but batch['image'] is a pytree of several "
            "inputs; train without an attack"
        )

    def loss(image: Array) -> Float[Array, ""]:
        outputs, total = predict(image), jnp.zeros(())
        for task in tasks:
            label, present = batch["labels"][task.name], batch["present"][task.name]
            task_sum, count = task.loss(outputs[task.name], label, present)
            count = axis.psum(jax.lax.stop_gradient(count))  # below 1 with small class weights
            total += task_sum / jnp.where(count > 0, count, 1.0)
        return total

    return {**batch, "image": attack(loss, batch["image"], keys)}
