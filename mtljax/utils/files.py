"""Bounds on what a file may ask for, checked before anything is allocated.

A file of a few bytes can claim to hold terabytes, or unpack to them. What is read here never takes
more than `FREE` bytes and `RATIO` times what the file takes on the disk. No pickle is ever loaded.
"""

import gzip
import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

FREE, RATIO = 2**26, 200
"""Real data is packed to a tenth or a fiftieth; a thousandth, which is all that deflate can do, is
reached by what has nothing in it."""
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def check_regular(path: Path) -> None:
    """Makes sure that a path is not that of a device or a pipe, which may never come to an end.

    Raises:
      ValueError: It is.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no regular file")


def stored_bytes(path: Path) -> int:
    """What a file, or all files in a folder, take on the disk; the holes of a file take nothing.

    Raises:
      ValueError: It is a device or a pipe.
      OSError: It is not there.
    """
    if path.is_dir():
        return sum(stored_bytes(inside) for inside in path.rglob("*") if inside.is_file())
    check_regular(path)
    told = path.stat()
    return min(told.st_size, getattr(told, "st_blocks", told.st_size) * 512 or told.st_size)


def check_bytes(holds: int, stored: int) -> None:
    """Makes sure that a file does not hold, or claim to hold, far more than is stored.

    Raises:
      ValueError: It does.
    """
    if holds > FREE + RATIO * stored:
        raise ValueError(
            f"claims to hold {holds} bytes in {stored}: that is no data, or packed too tightly to "
            "be trusted; if it is right, store it unpacked"
        )


def check_files(folder: Path) -> None:
    """Makes sure that all there is in a folder, or the one file, is plain, and not mostly a hole.

    Raises:
      ValueError: There is a device, a pipe, a link to a folder, or a file with a huge hole.
    """
    for path in folder.rglob("*") if folder.is_dir() else (folder,):
        if path.is_dir() and not path.is_symlink():
            continue
        check_regular(path)
        if path.is_file():
            check_bytes(path.stat().st_size, stored_bytes(path))


def read_npy(path: Path) -> np.ndarray:
    """An array in a `.npy` file, looked at only, not read.

    Raises:
      ValueError: It is none, one of Python objects, or shorter than it says.
    """
    try:
        check_bytes(path.stat().st_size, stored_bytes(path))
        with np.errstate(over="ignore"):  # of sizes that are refused
            return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError):
        raise
    except Exception as error:  # damaged headers make NumPy raise anything
        raise ValueError(f"no array: {error}") from None


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays in a `.npz` file, by name.

    Raises:
      ValueError: It is damaged, holds Python objects, or claims to hold far more than it can.
      OSError: It cannot be read.
    """
    try:
        stored = stored_bytes(path)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            check_bytes(sum(member.file_size for member in members), stored)
            found = {}
            for member in members:
                # Made of no more bytes than the archive says; where that is a lie, its sum is too.
                with archive.open(member) as file:
                    found[member.filename.removesuffix(".npy")] = _read_member(file, member)
            return found
    except (ValueError, OSError):
        raise
    except Exception as error:  # damaged archives make zipfile raise anything
        raise ValueError(f"no archive of arrays: {error}") from None


def _read_member(file: IO[bytes], member: zipfile.ZipInfo) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"{member.filename} has a header of version {version}, which is not read")
    shape, fortran, dtype = HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects, which are never loaded")
    size = math.prod(shape) * dtype.itemsize
    if size > member.file_size:
        raise ValueError(f"{member.filename} says it has shape {shape}, which it does not hold")
    flat = np.frombuffer(file.read(size), dtype)
    return flat.reshape(shape, order="F" if fortran else "C").copy()


def read_text(path: Path) -> str:
    """A text file, whole.

    Raises:
      ValueError: It is not in UTF-8, a device, or mostly a hole.
      OSError: It cannot be read.
    """
    check_bytes(path.stat().st_size, stored_bytes(path))
    return path.read_text(encoding="utf-8")


def read_bytes(path: Path) -> bytes:
    """A file, unpacked if its name ends in `.gz`.

    Raises:
      ValueError: It is damaged, or unpacks to far more than it takes on the disk.
      OSError: It cannot be read.
    """
    stored = stored_bytes(path)
    most = FREE + RATIO * stored
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(most + 1)
    except (EOFError, zlib.error) as error:
        raise ValueError(f"cannot be unpacked: {error}") from None
    check_bytes(len(data), stored)
    return data


PART = ".part"
"""Ending of a file that is not yet complete."""


def check_output(path: Path) -> None:
    """Makes sure, before a long computation, that its result can be written to a file.

    Raises:
      ValueError: It cannot.
    """
    folder = path.parent
    if path.is_dir():
        raise ValueError(f"cannot write to {path}: it is a folder; --output names a file")
    if not folder.is_dir():
        raise ValueError(f"cannot write to {path}: there is no folder {folder}; make it first")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ValueError(f"cannot write to {path}: permission denied; --output names another file")


def write_json(path: Path, value: Any) -> None:
    """Writes a file that is there completely or not at all."""
    write_text(path, to_text(value, indent=2))


def to_text(value: Any, indent: int | None = None) -> str:
    """JSON with a line's end, null for what JSON has no word for."""
    return json.dumps(_null_for_nan(value), indent=indent, allow_nan=False) + "\n"


def _null_for_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return _each(_null_for_nan, value)


def _nan_for_null(value: Any) -> Any:
    return math.nan if value is None else _each(_nan_for_null, value)


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """A function of what a container holds, in the same container; of a leaf, the leaf."""
    if isinstance(value, dict):
        return {key: function(inside) for key, inside in value.items()}
    return [function(inside) for inside in value] if isinstance(value, (list, tuple)) else value


def write_text(path: Path, text: str) -> None:
    """Writes a file that is there completely or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file that is there completely or not at all."""
    part = path.with_name(path.name + PART)
    part.unlink(missing_ok=True)
    with part.open("xb") as file:  # never through a link that somebody put there
        file.write(data)
    os.replace(part, path)


def lock(path: Path) -> IO[str]:
    """Opens a file and locks it for this process; the lock goes with the process, however it ends.

    Raises:
      BlockingIOError: Another process has it.
    """
    file = path.open()
    try:
        import fcntl
    except ImportError:  # Windows
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    except OSError:  # a file system without locks
        return file
    return file
