"""Image files in the cells of Parquet tables."""

import collections
import contextlib
import dataclasses
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mtljax.utils.bounded_reading import check_bytes, stored_bytes
from mtljax.utils.optional import require
from mtljax.utils.text import shortened

CACHE_BYTES = 2**29
"""Size of the most recent row groups of images that a process retains; at least one is retained."""


@dataclasses.dataclass(frozen=True, slots=True)
class EncodedImage:
    """Image file in a cell of a Parquet table, read on access.

    Memory: a process retains `CACHE_BYTES` of the most recent row groups, not the entire table.
    """

    table: Path
    """Parquet file."""
    column: str
    """Path of the bytes: "mask", or "image.bytes" for a struct."""
    group: int
    """Row group."""
    index: int
    """Row in the group."""
    name: str
    """File name in the table, or the column, for messages."""

    def open(self) -> BinaryIO:
        """Returns the file in memory; raises ValueError if the table cannot be read any more."""
        data = read_group(self.table, self.column, self.group)[self.index]
        return io.BytesIO(data.as_buffer() if data.is_valid else b"")


ImageFile = Path | EncodedImage
"""Image in a file, or in a cell of a table."""


class GroupCache:
    """Columns of bytes of the most recent row groups."""

    def __init__(self) -> None:
        self._groups: collections.OrderedDict[tuple, Any] = collections.OrderedDict()
        self._lock = threading.Lock()

    def read(self, table: Path, column: str, group: int) -> Any:
        """Returns the bytes of a column in a row group, as an Arrow array."""
        try:
            stat = table.stat()
        except OSError as error:
            raise ValueError(f"{table} cannot be read: {error.strerror}") from None
        key = (table, stat.st_mtime_ns, stat.st_size, column, group)
        with self._lock:
            if key not in self._groups:
                self._groups[key] = _read_bytes(table, column, group)
                while len(self._groups) > 1 and self.size() > CACHE_BYTES:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(key)
            return self._groups[key]

    def size(self) -> int:
        """Returns the number of retained bytes."""
        return sum(values.nbytes for values in self._groups.values())


_groups = GroupCache()


def read_group(table: Path, column: str, group: int) -> Any:
    """Returns the bytes of a column in a row group, as an Arrow array."""
    return _groups.read(table, column, group)


def _read_bytes(path: Path, column: str, group: int) -> Any:
    """Reads one column of bytes of one row group."""
    with open_parquet(path) as file:
        metadata = file.metadata.row_group(group)
        chunks = map(metadata.column, range(metadata.num_columns))
        size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema == column)
        check_bytes(size, stored_bytes(path))
        values = file.read_row_group(group, columns=[column]).column(0)
        if values.type.num_fields:  # a struct
            from pyarrow import compute

            values = compute.struct_field(values, [0])
        return values


@contextlib.contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """Context of an open file, which turns the exceptions of pyarrow into ValueError."""
    pyarrow = require("pyarrow", extra="parquet", purpose=str(path))
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, memory_map=True) as file:
            yield file
    except UnicodeDecodeError:
        raise ValueError(f"{path} has text that is not encoded in UTF-8") from None
    except (pyarrow.ArrowException, ValueError, OSError, ArithmeticError) as error:
        reason = shortened(str(error), 200)
        raise ValueError(f"{path} cannot be read as a Parquet file: {reason}") from None


def opened(file: ImageFile) -> Path | BinaryIO:
    """Returns what the readers of images take: the path, or the file in memory."""
    return file if isinstance(file, Path) else file.open()
