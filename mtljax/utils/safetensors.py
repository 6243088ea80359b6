"""Serialization of named arrays in the safetensors format, with every size checked."""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import save

from mtljax.utils.text import first_line

DTYPES: dict[str, Any] = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16},
    **{"F8_E4M3": jnp.float8_e4m3fn, "F8_E5M2": jnp.float8_e5m2, "BOOL": np.bool_},
    **{"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8},
    **{"U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8},
}
"""Supported dtypes by their name in safetensors."""


def pack(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """Returns a copy of the arrays, with metadata, as the bytes of a safetensors file."""
    known = {np.dtype(dtype) for dtype in DTYPES.values()}
    for name, array in arrays.items():
        if array.dtype not in known:
            raise ValueError(f"{name} is {array.dtype}, which safetensors does not support")
    # safetensors reads raw memory, so it must be C-contiguous.
    copies = {name: np.array(array, order="C") for name, array in arrays.items()}
    return save(copies, dict(metadata) if metadata else None)


def unpack(data: bytes, what: str) -> dict[str, np.ndarray]:
    """Inverse of `pack`; allocates no more than the size of `data`. `what` is its name in errors.

    Raises:
      ValueError: The file is damaged, or has an unsupported dtype.
    """
    try:
        entries = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        reason = re.split('[`"]', first_line(error))[0]  # then repeats the content of the file
        raise ValueError(f"{what} is no safetensors file: {reason}") from None
    arrays = {}
    for name, entry in entries:
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{what}: {name} has the unknown type {entry['dtype']!r}")
        flat = np.frombuffer(entry["data"], DTYPES[entry["dtype"]])
        arrays[name] = flat.reshape(entry["shape"])
    return arrays
