"""The weights alone, in the safetensors format."""

import jax

from mtljax.exporters.model import Model, as_words
from mtljax.utils.safetensors import pack
from mtljax.utils.tree import flatten


def safetensors(model: Model) -> dict[str, bytes]:
    """Weights alone, each under `collection/path`: `params/fusion/trunk_0/Dense_0/kernel`.

    The file's metadata are the description, the experiment (`config`) among it, from which the
    network can be built again.

    References:
      https://huggingface.co/docs/safetensors
    """
    arrays = jax.device_get(flatten(model.variables))
    return {"": pack(arrays, as_words(model.description))}
