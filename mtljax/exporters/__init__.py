"""Exporters: a trained model as a file that can be used without mtljax, one module per format.

The input of an exported model is a batch of images `[b, height, width, channels]`, for any b, in
the size, dtype and unit of the training images; normalization is part of the model. It has two
outputs per task: `TASK/output`, the output of the head (for example logits), and `TASK/prediction`,
the decoded prediction (the class). The weights are those of the best checkpoint, EMA weights if
there are any.
"""

from collections.abc import Callable

from mtljax.exporters.model import Model
from mtljax.exporters.onnx import onnx
from mtljax.exporters.safetensors import safetensors
from mtljax.exporters.stablehlo import stablehlo

EXPORTS: dict[str, Callable[[Model], dict[str, bytes]]] = {
    "stablehlo": stablehlo,
    "onnx": onnx,
    "safetensors": safetensors,
}
"""Name -> function of a model that returns {suffix of the file name: content}."""

__all__ = ["EXPORTS", "Model"]
