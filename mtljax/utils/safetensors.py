"""Named arrays as bytes and back, in the safetensors format: no code in it, every size checked."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import save

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
"""What safetensors calls the types that arrays here may have."""


def pack(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """A copy of the arrays as one safetensors file in memory, with words about them.

    Raises:
      ValueError: safetensors has no word for a type.
    """
    known = {np.dtype(dtype) for dtype in DTYPES.values()}
    for name, array in arrays.items():
        if array.dtype not in known:
            raise ValueError(f"{name} is {array.dtype}, which safetensors cannot hold")
    # safetensors reads the memory as it lies: it must be in the order of the indices.
    copies = {name: np.array(array, order="C") for name, array in arrays.items()}
    return save(copies, dict(metadata) if metadata else None)


def unpack(data: bytes, what: str) -> dict[str, np.ndarray]:
    """Undoes `pack`. What is allocated is never more than `data` holds.

    Args:
      data: A safetensors file, whole.
      what: What to call it in messages.

    Raises:
      ValueError: It is damaged, or holds a type that is not known here.
    """
    try:
        found = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{what} is no safetensors file: {error}") from None
    arrays = {}
    for name, told in found:
        if told["dtype"] not in DTYPES:
            raise ValueError(f"{what}: {name} has the unknown type {told['dtype']!r}")
        flat = np.frombuffer(told["data"], DTYPES[told["dtype"]])
        arrays[name] = flat.reshape(told["shape"])
    return arrays
