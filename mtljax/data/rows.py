"""Content of a table of labels."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mtljax.utils.text import normalized


class Row(NamedTuple):
    """Row of a table."""

    number: int
    """Row number as counted by a spreadsheet, or by a text editor if no cell has several lines."""
    cells: dict[str, Any]
    """Column -> value; None for an empty cell."""
    file: Path = Path()
    """File of the table."""
    fault: str = ""
    """Reason for which the row cannot be used; "" if it can."""

    def __str__(self) -> str:
        """Returns the file and the number of the row, for messages."""
        return f"{self.file} row {self.number}"


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of one file, or of several files in their order.

    Attributes:
      rows: Rows in their order.
      path: File, or the folder of several files.
      columns: Names of the columns.
      class_names: Column of classes -> names in the order of the indices, as recorded by Hugging
        Face `datasets`. The cells have the names.
      unusable: Column -> type, of columns whose cells are not read.
      has_decimal_commas: True if cells may have numbers such as 3,14.
    """

    path: Path
    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    class_names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    unusable: Mapping[str, str] = dataclasses.field(default_factory=dict)
    has_decimal_commas: bool = False


def cell_value(value: Any) -> Any:
    """Returns a cell with normalized text; None if it is empty."""
    text = normalized(value) if isinstance(value, str) else value
    return None if isinstance(text, str) and not text else text
