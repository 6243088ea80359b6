"""ONNX, by jax2onnx: opened by onnxruntime and by whatever else reads the format."""

import logging

import jax
import jax.numpy as jnp

from mtljax.exporters.model import BATCH, INPUT, Model, as_words
from mtljax.models.cpu_ops import standard_ops
from mtljax.utils.optional import require


def onnx(model: Model) -> dict[str, bytes]:
    """ONNX as jax2onnx writes it, which onnxruntime opens, on many devices and in many languages.

    The input is called `image`, the outputs by their names here. The file's metadata are the
    description.

    Raises:
      ValueError: jax2onnx is not installed, or has no words for a part of this network.

    References:
      https://onnx.ai, https://github.com/enpasos/jax2onnx
    """
    jax2onnx = require("jax2onnx", "onnx", "ONNX")
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of shapes left out below
    images = jax.ShapeDtypeStruct((BATCH, *model.image.shape), model.image.dtype)
    try:
        with standard_ops(True):
            proto = jax2onnx.to_onnx(
                # Copies, for a value that is both output and prediction has one name only.
                lambda image: jax.tree.map(jnp.copy, model.outputs(image)),
                [images],
                model_name=model.name,
                input_names=[INPUT],
                output_names=list(model.description["outputs"]),
            )
    except Exception as error:  # whatever a converter says of what it does not know
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"jax2onnx has no words for a part of this network ({reason[:200]}); export it "
            "--to stablehlo"
        ) from error
    # Shapes that jax2onnx notes beside the graph, not always rightly; a runtime infers its own.
    del proto.graph.value_info[:]
    for key, value in as_words(model.description).items():
        proto.metadata_props.add(key=key, value=value)
    return {"": proto.SerializeToString()}
