"""What fusions over several scales have in common."""

import flax.linen as nn
from jaxtyping import Array, Float

from mtljax.models.fusion.base import Features, Fusion, require_pyramid
from mtljax.models.layers import conv, resize
from mtljax.models.trunks.base import features_of


def last_scales(fusion: Fusion, name: str, image: Array, train: bool) -> tuple[Features, Features]:
    """The maps of the stages below, and of the last `fusion.scales` stages, finest first.

    Raises:
      ValueError: The trunk has fewer stages, or they are not maps that get coarser.
    """
    scales, count = fusion.scales, len(fusion.trunk)
    maps = tuple(features_of(x) for x in fusion.run_stages(fusion.trunk, image, train))
    require_pyramid(name, maps[-scales:])
    if not 1 <= scales <= count:
        raise ValueError(
            f"fusion {name}: scales={scales}, but the trunk has {count} stages; choose 1 to {count}"
        )
    return maps[:-scales], maps[-scales:]


class Gather(nn.Module):
    """Adds to every scale what the finer ones found: y_i = x_i + conv(down(y_{i-1}))."""

    @nn.compact
    def __call__(self, maps: list[Float[Array, "B h w C"]]) -> Features:
        gathered = [maps[0]]
        for i, x in enumerate(maps[1:]):
            finer = resize(gathered[-1], x.shape[1:3])
            gathered.append(x + conv(x.shape[-1], 1, name=f"down_{i}")(finer))
        return tuple(gathered)
