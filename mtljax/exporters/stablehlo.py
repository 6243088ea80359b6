"""StableHLO, by `jax.export`: opened by jax, on any machine that jax runs on."""

import jax
from jax import export

from mtljax.exporters.model import BATCH, Model, as_bytes

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""Where the one file runs."""


def stablehlo(model: Model) -> dict[str, bytes]:
    """StableHLO as `jax.export` writes it, which needs jax and flatbuffers to be opened.

    `jax.export.deserialize(bytearray(data)).call(images)` gives `{name: output}`. The format has no
    place for a description, so that is in a second file, `.json`.

    References:
      https://docs.jax.dev/en/latest/export/export.html
    """
    sides = ", ".join(map(str, model.image.shape))
    images = jax.ShapeDtypeStruct(export.symbolic_shape(f"{BATCH}, {sides}"), model.image.dtype)
    exported = export.export(jax.jit(model.outputs), platforms=PLATFORMS)(images)
    return {"": bytes(exported.serialize()), ".json": as_bytes(model.description)}
