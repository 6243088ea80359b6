"""Reading of untrusted files with bounded memory.

A file of a few bytes can claim to hold terabytes, or unpack to them. The functions here allocate at
most `FREE` bytes plus `RATIO` times the file's size on disk, and check this before they allocate.
No pickle is loaded. They raise OSError for a file that cannot be read, and ValueError for a device,
a pipe, or content that is damaged, has another format, holds Python objects or claims too much.
"""

import gzip
import json
import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from mtljax.utils import literal
from mtljax.utils.text import first_line

FREE, RATIO = 2**26, 200
"""Real data is compressed 10 to 50 times; deflate reaches its limit of 1,000 only on empty data."""
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,
}
"""Readers by version of the format; 3.0 differs in names of fields, which numbers do not have."""


def check_regular(path: Path) -> None:
    """Raises ValueError for devices and pipes, which may never end, and for folders."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no regular file")


def stored_bytes(path: Path) -> int:
    """Returns the size on disk of a file, or of all files in a folder; holes take no space."""
    if path.is_dir():
        return sum(stored_bytes(inside) for inside in path.rglob("*") if inside.is_file())
    check_regular(path)
    stat = path.stat()
    return min(stat.st_size, getattr(stat, "st_blocks", stat.st_size) * 512 or stat.st_size)


def check_bytes(size: int, stored: int) -> None:
    """Raises ValueError if `size` bytes are too many for a file of `stored` bytes on disk."""
    if size > FREE + RATIO * stored:
        raise ValueError(
            f"claims to hold {size} bytes in a file of {stored}: this is no data, or compressed "
            "too much to be trusted; if it is correct, store it uncompressed"
        )


def check_files(path: Path) -> None:
    """Raises ValueError if a file, or one in a folder, is a device, a pipe, a link to a folder, or
    has a huge hole."""
    for inside in path.rglob("*") if path.is_dir() else (path,):
        if inside.is_dir() and not inside.is_symlink():
            continue
        check_regular(inside)
        if inside.is_file():
            check_bytes(inside.stat().st_size, stored_bytes(inside))


def read_npy(path: Path) -> np.ndarray:
    """Maps the array in a `.npy` file into memory, read-only."""
    check_bytes(path.stat().st_size, stored_bytes(path))
    try:
        with path.open("rb") as file, np.errstate(over="ignore"):  # sizes that overflow are refused
            file.peek()  # so that no thread waits for the disk while another waits for its header
            shape, fortran, dtype = _read_header(file)
            if dtype.hasobject:
                raise ValueError("pickles are not loaded")
            order: Literal["F", "C"] = "F" if fortran else "C"
            return np.memmap(path, dtype, "r", file.tell(), shape, order)
    except OSError:
        raise
    except Exception:  # NumPy raises anything on damaged headers, and quotes their content
        raise ValueError("no npy file of numbers, or a damaged one") from None


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Returns the shape of an array, whether columns are contiguous, and the type."""
    version = np.lib.format.read_magic(file)
    with literal.LOCK:
        return HEADERS[version](file)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays in a `.npz` file by name."""
    try:
        stored = stored_bytes(path)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            check_bytes(sum(member.file_size for member in members), stored)
            arrays = {}
            for member in members:
                # zipfile reads no more than `file_size`, and checks the CRC of what it read.
                with archive.open(member) as file:
                    arrays[member.filename.removesuffix(".npy")] = _read_member(file, member)
            return arrays
    except (ValueError, OSError):
        raise
    except Exception as error:  # zipfile raises anything on damaged archives
        raise ValueError(f"no archive of arrays: {first_line(error)}") from None


def _read_member(file: IO[bytes], member: zipfile.ZipInfo) -> np.ndarray:
    try:
        shape, fortran, dtype = _read_header(file)
    except OSError:
        raise
    except Exception:  # NumPy raises anything on damaged headers, and quotes their content
        raise ValueError(f"{member.filename} is no npy file, or a damaged one") from None
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects, which are never loaded")
    size = math.prod(shape) * dtype.itemsize
    if size > member.file_size:
        raise ValueError(f"{member.filename} claims shape {shape}, but is too short for it")
    flat = np.frombuffer(file.read(size), dtype)
    return flat.reshape(shape, order="F" if fortran else "C").copy()


def read_text(path: Path) -> str:
    """Returns the content of a UTF-8 text file."""
    check_bytes(path.stat().st_size, stored_bytes(path))
    return path.read_text(encoding="utf-8")


def read_json(path: Path, remedy: str = "") -> Any:
    """Returns the content of a JSON file; the `remedy` ends the message of a ValueError."""
    try:
        return json.loads(read_text(path))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist{remedy}") from None
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read: {error.strerror}; check its permissions"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {first_line(error)}{remedy}") from None


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file, decompressed if its name ends in `.gz`."""
    stored = stored_bytes(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(FREE + RATIO * stored + 1)
    except (EOFError, zlib.error) as error:
        raise ValueError(f"cannot be decompressed: {first_line(error)}") from None
    check_bytes(len(data), stored)
    return data
