"""Export to StableHLO by `jax.export`."""

import jax
from jax import export

from mtljax.exporters.model import BATCH, Model
from mtljax.utils.files import json_text

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""Platforms that the exported file supports."""


def stablehlo(model: Model) -> dict[str, bytes]:
    """StableHLO for JAX on any platform; needs jax and flatbuffers.

    `jax.export.deserialize(bytearray(data)).call(images)` returns `{name: output}`. The format
    cannot store the description, which is written to a second file, `.json`.

    References:
      https://docs.jax.dev/en/latest/export/export.html
    """
    sides = ", ".join(map(str, model.image.shape))
    images = jax.ShapeDtypeStruct(export.symbolic_shape(f"{BATCH}, {sides}"), model.image.dtype)
    exported = export.export(jax.jit(model.outputs), platforms=PLATFORMS)(images)
    description = json_text(model.description, indent=2).encode()
    return {"": bytes(exported.serialize()), ".json": description}
