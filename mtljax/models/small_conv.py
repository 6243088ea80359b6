"""Convolutions of small maps as matrix products, where that is faster."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mtljax.models.forms import cpu_forms

SMALL_MAP = 64
"""Positions of a map up to which the matrix product is no slower on CPU (8x8: equal; 2x2: 10x
faster), and a step made of nothing else may be looped over inside one program; see `dispatch`."""


def small_conv(
    x: Float[Array, "B H W C"], kernel: Float[Array, "h w C F"], strides, padding, **options
) -> Float[Array, "B H W F"]:
    """`lax.conv_general_dilated`, for `nn.Conv(..., conv_general_dilated=small_conv)`.

    On CPU, where the map has at most `SMALL_MAP` positions and the kernel is odd, dense, of stride
    1 and keeps the size, the neighbourhoods are gathered and multiplied with the kernel as one
    matrix; everything else goes to XLA's own convolution.
    """
    _, height, width, channels = x.shape
    rows, columns, inputs, features = kernel.shape
    plain = (
        cpu_forms()
        and height * width <= SMALL_MAP
        and tuple(strides) == (1, 1)
        and padding == "SAME"
        and inputs == channels
        and rows % 2 == columns % 2 == 1
        and all(set(options.get(name) or (1,)) == {1} for name in ("lhs_dilation", "rhs_dilation"))
    )
    if not plain:
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    edge = ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0))
    around = jnp.pad(x, edge)
    neighbours = jnp.concatenate(
        [around[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)], -1
    )
    return jnp.tensordot(
        neighbours, kernel.reshape(-1, features), axes=1, precision=options.get("precision")
    )
