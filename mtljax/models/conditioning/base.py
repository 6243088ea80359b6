"""Base classes of conditionings: ways in which a network depends on the preference over tasks."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.fusion.base import Features, Fusion
from mtljax.models.partition import Flat, task_of
from mtljax.utils.tree import flatten, unflatten

PREFERENCE = "preference"
"""Variable of a conditioned model, in the collection `constants`: the preference over tasks, [T],
which sums to 1. It is equal for all tasks unless replaced; a train step draws a new one."""


class Conditioning(nn.Module):
    """`conditioning(fusion, image, preference, train=...) -> {task: features}`.

    Attributes:
      concentration: Parameter of the symmetric Dirichlet distribution of the preferences in
        training: 1 is uniform over the simplex, less prefers its corners, more its center.
    """

    balancer: ClassVar[str] = "ew"
    """Balancer of the method as text, with the value of the official code for image data."""

    concentration: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.concentration < float("inf"):
            raise ValueError(f"concentration must be > 0 and finite, not {self.concentration}")
        super().__post_init__()

    @nn.nowrap
    def draw(self, key: jax.Array, num_tasks: int) -> Float[Array, " T"]:
        """Draws a preference for one training step; it sums to 1."""
        return jax.random.dirichlet(key, jnp.full(num_tasks, self.concentration, jnp.float32))

    def __call__(
        self, fusion: Fusion, image: Array, preference: Float[Array, " T"], *, train: bool
    ) -> dict[str, Features]:
        """Runs trunk and fusion at a preference."""
        raise NotImplementedError


class WeightConditioning(Conditioning):
    """Conditioning that changes the shared weights of trunk and fusion.

    The weights of the network itself are parameters at their usual paths, so that initial weights,
    freezing and learning rates apply to them as in an unconditioned network. Modules of one task,
    the heads among them, do not depend on the preference.
    """

    def changes(self, shared: Flat, preference: Float[Array, " T"]) -> Flat:
        """Changes of shared parameters, by path, added to their values; none for missing paths."""
        raise NotImplementedError

    @nn.compact
    def __call__(
        self, fusion: Fusion, image: Array, preference: Float[Array, " T"], *, train: bool
    ) -> dict[str, Features]:
        features = fusion(image, train=train) if self.is_initializing() else {}
        params = flatten(fusion.variables["params"])
        shared = {path: leaf for path, leaf in params.items() if task_of(path) is None}
        for path, change in self.changes(shared, preference).items():
            params[path] = params[path] + change.astype(params[path].dtype)
        if self.is_initializing():  # creates the parameters; the features are not used
            return features
        changed = {"params": unflatten(params)}
        run = nn.map_variables(
            lambda fusion: fusion(image, train=train), "params", lambda variables: changed
        )
        return run(fusion)
