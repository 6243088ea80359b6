"""The contract of a fusion: it owns the trunk's stages and decides how tasks share and exchange."""

import re
from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float, PyTree

from mtljax.models.layers import global_average_pool
from mtljax.models.partition import mark_representation
from mtljax.models.trunks.base import Activations, features_of

Features = tuple[Array, ...]
"""Outputs of the last stages, coarsest last; a head reads as many as its task's `taps`. Where all
heads begin by averaging the last one over space, its average may stand for it."""


class Fusion(nn.Module):
    """`fusion(image, train=...) -> {task: features}`.

    Attributes:
      trunk: The stages.
      tasks: Names of the tasks.
      taps: How many of the last stages to hand over.
      remat: Compute a stage's activations again in the backward pass instead of keeping them.
      pools: Every head begins by averaging the last stage over space; see `hand_over`.
    """

    trunk: tuple[nn.Module, ...]
    tasks: tuple[str, ...]
    taps: int
    remat: bool = False
    pools: bool = False

    def copy_stage(self, index: int, name: str) -> nn.Module:
        """The stage at `index` with parameters of its own, under `name`."""
        return self.trunk[index].clone(parent=self, name=name)

    def copy_trunk(self, prefix: str) -> tuple[nn.Module, ...]:
        """The same stages with parameters of their own, named `<prefix>_trunk_<i>`."""
        return tuple(self.copy_stage(i, f"{prefix}_trunk_{i}") for i in range(len(self.trunk)))

    @nn.nowrap
    def stage_of(self, module: str) -> int | None:
        """Which of the trunk's stages a module of this fusion is, or is a copy of; None: of none.

        Args:
          module: Its path below the fusion: `trunk_0`, `digit_trunk_0`.
        """
        found = re.fullmatch(r"(?:[^/]+_)?trunk_(\d+)", module)
        return int(found[1]) if found else None

    def run_stage(self, stage: nn.Module, x: Activations, train: bool) -> Activations:
        """One stage, with `remat` as asked."""
        return run_stage(stage, x, train, self.remat)

    def run_stages(
        self, stages: tuple[nn.Module, ...], x: Activations, train: bool
    ) -> tuple[Activations, ...]:
        """The outputs of all stages, each with what travels beside its features."""
        outputs = []
        for stage in stages:
            x = self.run_stage(stage, x, train)
            outputs.append(x)
        return tuple(outputs)

    def run_trunk(self, stages: tuple[nn.Module, ...], x: Activations, train: bool) -> Features:
        """The features of the last `taps` stages."""
        outputs = self.run_stages(stages, x, train)
        return tuple(features_of(x) for x in outputs[-self.taps :])

    def represent(self, features: PyTree[Float[Array, "B ..."]]) -> PyTree[Float[Array, "B ..."]]:
        """Marks the last point that all tasks' losses go through; see `mark_representation`."""
        return mark_representation(self, features)

    def hand_over(self, features: Features) -> dict[str, Features]:
        """The same features to all heads, as the representation.

        If every head begins by averaging over space, that is done here: once, and what is
        represented is a vector.
        """
        if self.pools:
            features = (global_average_pool(features[-1]),)
        return dict.fromkeys(self.tasks, self.represent(features))


def run_stage(stage: nn.Module, x: Activations, train: bool, remat: bool) -> Activations:
    """One stage; with `remat` its activations are computed again in the backward pass."""
    run = lambda stage, x: stage(x, train)
    return (nn.remat(run) if remat else run)(stage, x)


def require_maps(fusion: str, features: Sequence[Array]) -> None:
    """Raises ValueError where a fusion that works on positions meets features without them."""
    shapes = [x.shape[1:] for x in features if x.ndim != 4]
    if shapes:
        raise ValueError(
            f"fusion {fusion} works on maps [B, H, W, C], and a stage of this trunk gives "
            f"{shapes[0]} per image; take a trunk of maps (cnn, resnet18, vit_ti, ...) or a fusion "
            "for any features (none, attention, cross_stitch, nddr, mmoe, cgc, ple, ...)"
        )


def require_pyramid(fusion: str, features: Sequence[Array]) -> None:
    """Raises ValueError where maps grow again, as on the way up of a segnet."""
    require_maps(fusion, features)
    sizes = [x.shape[1] for x in features]
    if sizes != sorted(sizes, reverse=True):
        raise ValueError(
            f"fusion {fusion} goes from coarse maps to fine ones and needs stages that get coarser "
            f"(here: {sizes} pixels high); take cnn, resnet18, convnext_t, vit_ti, ..."
        )
