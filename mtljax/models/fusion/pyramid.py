"""Functions and modules that the multi-scale fusions share."""

import flax.linen as nn
from jaxtyping import Array, Float

from mtljax.models.fusion.base import Features, Fusion, require_pyramid
from mtljax.models.layers import conv, resize
from mtljax.models.trunks.base import features_of


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
