"""The contract of a fusion: it owns the trunk's stages and decides how tasks share and exchange."""

import flax.linen as nn
from jaxtyping import Array, Float, PyTree

from mtljax.models.partition import mark_representation
from mtljax.models.trunks.base import Signal, features_of

Features = tuple[Array, ...]
"""Outputs of the last stages, coarsest last; a head reads as many as its task's `taps`."""


class Fusion(nn.Module):
    """`fusion(image, train=...) -> {task: features}`.

    Attributes:
      trunk: The stages.
      tasks: Names of the tasks.
      taps: How many of the last stages to hand over.
      remat: Compute a stage's activations again in the backward pass instead of keeping them.
    """

    trunk: tuple[nn.Module, ...]
    tasks: tuple[str, ...]
    taps: int
    remat: bool = False

    def copy_trunk(self, prefix: str) -> tuple[nn.Module, ...]:
        """The same stages with parameters of their own, named `<prefix>_trunk_<i>`."""
        return tuple(
            stage.clone(parent=self, name=f"{prefix}_trunk_{i}")
            for i, stage in enumerate(self.trunk)
        )

    def run_stage(self, stage: nn.Module, x: Signal, train: bool) -> Signal:
        """One stage, with `remat` as asked."""
        run = lambda stage, x: stage(x, train)
        return (nn.remat(run) if self.remat else run)(stage, x)

    def run_trunk(self, stages: tuple[nn.Module, ...], x: Signal, train: bool) -> Features:
        """The features of the last `taps` stages."""
        outputs = []
        for stage in stages:
            x = self.run_stage(stage, x, train)
            outputs.append(features_of(x))
        return tuple(outputs[-self.taps :])

    def represent(self, features: PyTree[Float[Array, "B ..."]]) -> PyTree[Float[Array, "B ..."]]:
        """Marks the last point that all tasks' losses go through; see `mark_representation`."""
        return mark_representation(self, features)
