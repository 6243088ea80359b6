"""A trained model in one file that is used without mtljax, in several formats, one file each.

What goes in is a batch of images, `[b, height, width, channels]` for any b, as the training images
were: the same size, type and unit. Normalisation is inside. What comes out are two things of each
task, by name: `TASK/output`, what the network gives (logits, for instance), and `TASK/prediction`,
what `predict` says of it (the class). Weights are those of the best checkpoint, averaged ones if
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
"""Name -> function from a model to files: what is added to the file's name -> what is in it."""

__all__ = ["EXPORTS", "Model"]
