"""Export to StableHLO by `jax.export`."""

import jax
from jax import export

from mtljax.exporters.model import BATCH, Model
from mtljax.utils.files import json_text
from mtljax.utils.text import first_line

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""Platforms that the exported file supports."""


def stablehlo(model: Model) -> dict[str, bytes]:
    """StableHLO for JAX on any platform; needs jax and flatbuffers.

    `jax.export.deserialize(bytearray(data)).call(images)` returns `{name: output}`. The format
    cannot store the description, which is written to a second file, `.json`.

    Raises:
      ValueError: A part of the network works for a known batch size only.

    References:
      https://docs.jax.dev/en/latest/export/export.html
    """
    sides = ", ".join(map(str, model.image.shape))
    images = jax.ShapeDtypeStruct(export.symbolic_shape(f"{BATCH}, {sides}"), model.image.dtype)
    try:
        exported = export.export(jax.jit(model.outputs), platforms=PLATFORMS)(images)
    except Exception as error:  # JAX raises many types for operations on the unknown batch size
        raise ValueError(
            f"the network cannot be exported for every batch size ({first_line(error)}); in a head "
            "or loss of your own, use x.shape[0] instead of len(x)"
        ) from error
    description = json_text(model.description, indent=2).encode()
    return {"": bytes(exported.serialize()), ".json": description}
