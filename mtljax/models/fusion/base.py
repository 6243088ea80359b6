"""Base class of fusions: runs the stages of the trunk and exchanges features between tasks."""

import re
from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float, PyTree

from mtljax.models.layers import conv, global_average_pool, resize
from mtljax.models.partition import mark_representation
from mtljax.models.trunks.base import Activations, features_of

Features = tuple[Array, ...]
"""Outputs of the last stages, coarsest last; a head reads the last `taps` of them. If all heads
begin with global average pooling, the last one may be pooled already."""


class Fusion(nn.Module):
    """`fusion(image, train=...) -> {task: features}`.

    Attributes:
      trunk: The stages.
      tasks: Names of the tasks.
      taps: Number of last stages to return.
      remat: Recompute the activations of a stage in the backward pass instead of storing them.
      pools: True if every head starts with global average pooling; see `share_features`.
    """

    trunk: tuple[nn.Module, ...]
    tasks: tuple[str, ...]
    taps: int
    remat: bool = False
    pools: bool = False

    def copy_stage(self, index: int, name: str) -> nn.Module:
        """The stage at `index` with separate parameters, under `name`."""
        return self.trunk[index].clone(parent=self, name=name)

    def copy_trunk(self, prefix: str) -> tuple[nn.Module, ...]:
        """All stages with separate parameters, named `<prefix>_trunk_<i>`."""
        return tuple(self.copy_stage(i, f"{prefix}_trunk_{i}") for i in range(len(self.trunk)))

    @nn.nowrap
    def stage_of(self, module: str) -> int | None:
        """Index of the stage that a module of this fusion is, or is a copy of; None if neither.

        `module` is its path below the fusion: `trunk_0`, `digit_trunk_0`.
        """
        match = re.fullmatch(r"(?:[^/]+_)?trunk_(\d+)", module)
        return int(match[1]) if match else None

    def run_stage(self, stage: nn.Module, x: Activations, train: bool) -> Activations:
        """Runs one stage, with the `remat` of this fusion."""
        return run_stage(stage, x, train, self.remat)

    def run_stages(
        self, stages: Sequence[nn.Module], x: Activations, train: bool
    ) -> tuple[Activations, ...]:
        """Outputs of all stages, run one after the other."""
        outputs = []
        for stage in stages:
            x = self.run_stage(stage, x, train)
            outputs.append(x)
        return tuple(outputs)

    def run_trunk(self, stages: Sequence[nn.Module], x: Activations, train: bool) -> Features:
        """Features of the last `taps` stages."""
        return tuple(features_of(y) for y in self.run_stages(stages, x, train)[-self.taps :])

    def represent(self, features: PyTree[Float[Array, "B ..."]]) -> PyTree[Float[Array, "B ..."]]:
        """Marks the representation for `level="features"`; see `mark_representation`."""
        return mark_representation(self, features)

    def share_features(self, features: Features) -> dict[str, Features]:
        """Marks features as the representation and returns them for every task.

        If `pools`, the last features are pooled here, once for all heads, into a vector.
        """
        if self.pools:
            features = (global_average_pool(features[-1]),)
        return dict.fromkeys(self.tasks, self.represent(features))


def run_stage(stage: nn.Module, x: Activations, train: bool, remat: bool) -> Activations:
    """Runs one stage; with `remat` the backward pass recomputes its activations."""
    run = lambda stage, x: stage(x, train)
    return (nn.remat(run) if remat else run)(stage, x)


def require_maps(fusion: str, features: Sequence[Array]) -> None:
    """Raises ValueError if any features are not maps [B, H, W, C]."""
    shapes = [x.shape[1:] for x in features if x.ndim != 4]
    if shapes:
        raise ValueError(
            f"fusion {fusion} requires maps [B, H, W, C], but a stage of this trunk returns shape "
            f"{shapes[0]} per image; take a convolutional trunk or a ViT (cnn, resnet18, vit_ti, "
            "...), or a fusion for any features (none, attention, cross_stitch, nddr, mmoe, ...)"
        )


def require_pyramid(fusion: str, features: Sequence[Array]) -> None:
    """Raises ValueError if maps get finer from one stage to the next, as in a segnet."""
    require_maps(fusion, features)
    sizes = [x.shape[1] for x in features]
    if sizes != sorted(sizes, reverse=True):
        raise ValueError(
            f"fusion {fusion} requires stages whose maps get coarser, but they are {sizes} pixels "
            "high; take cnn, resnet18, convnext_t, vit_ti, ..."
        )


def split_scales(
    fusion: Fusion, name: str, scales: int, image: Array, train: bool
) -> tuple[Features, Features]:
    """Runs the trunk; returns the maps of the lower stages and of the last `scales`, finest first.

    Raises:
      ValueError: The trunk has fewer stages, or its maps do not get coarser.
    """
    count = len(fusion.trunk)
    maps = tuple(features_of(x) for x in fusion.run_stages(fusion.trunk, image, train))
    require_pyramid(name, maps[-scales:])
    if not 1 <= scales <= count:
        raise ValueError(
            f"fusion {name}: scales={scales}, but the trunk has {count} stages; choose 1 to {count}"
        )
    return maps[:-scales], maps[-scales:]


class Gather(nn.Module):
    """Adds the finer maps to every coarser one: y_i = x_i + conv(down(y_{i-1}))."""

    @nn.compact
    def __call__(self, maps: list[Float[Array, "B h w C"]]) -> Features:
        gathered = [maps[0]]
        for i, x in enumerate(maps[1:]):
            finer = resize(gathered[-1], x.shape[1:3])
            gathered.append(x + conv(x.shape[-1], 1, name=f"down_{i}")(finer))
        return tuple(gathered)
