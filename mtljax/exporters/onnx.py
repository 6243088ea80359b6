"""Export to ONNX by jax2onnx."""

import logging

import jax
import jax.numpy as jnp

from mtljax.exporters.model import BATCH, INPUT, Model, as_strings
from mtljax.models.cpu_ops import standard_ops
from mtljax.utils.optional import require
from mtljax.utils.text import first_line


def onnx(model: Model) -> dict[str, bytes]:
    """ONNX for onnxruntime and other runtimes, on many devices and in many languages.

    The input is named `image`, the outputs as in the model. The description is stored in the file's
    metadata.

    Raises:
      ValueError: jax2onnx is not installed, or does not support a part of the network.

    References:
      https://onnx.ai, https://github.com/enpasos/jax2onnx
    """
    jax2onnx = require("jax2onnx", "onnx", "ONNX")
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # warnings about the shapes deleted below
    images = jax.ShapeDtypeStruct((BATCH, *model.image.shape), model.image.dtype)
    try:
        with standard_ops(True):
            proto = jax2onnx.to_onnx(
                # Copies: a value that is both output and prediction would get one name only.
                lambda image: jax.tree.map(jnp.copy, model.outputs(image)),
                [images],
                model_name=model.name,
                input_names=[INPUT],
                output_names=list(model.description["outputs"]),
            )
    except Exception as error:  # jax2onnx raises any exception for unsupported operations
        raise ValueError(
            f"jax2onnx does not support a part of this network ({first_line(error)}); "
            "use --to stablehlo"
        ) from error
    # Intermediate shapes of jax2onnx are sometimes wrong; runtimes infer them.
    del proto.graph.value_info[:]
    for key, value in as_strings(model.description).items():
        proto.metadata_props.add(key=key, value=value)
    return {"": proto.SerializeToString()}
