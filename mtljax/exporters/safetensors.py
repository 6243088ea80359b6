"""Export of weights to safetensors."""

import jax

from mtljax.exporters.model import Model, as_strings
from mtljax.utils.safetensors import pack
from mtljax.utils.tree import flatten


def safetensors(model: Model) -> dict[str, bytes]:
    """Weights only, named `collection/path`: `params/fusion/trunk_0/Dense_0/kernel`.

    The description is stored in the file's metadata; its `config` is the experiment, from which the
    network can be rebuilt.

    References:
      https://huggingface.co/docs/safetensors
    """
    arrays = jax.device_get(flatten(model.variables))
    return {"": pack(arrays, as_strings(model.description))}
