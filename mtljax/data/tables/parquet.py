"""Reader of Parquet tables."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtljax.data.files.encoded import CACHE_BYTES, EncodedImage, open_parquet, read_group
from mtljax.data.notes import NoteCounter
from mtljax.data.rows import Row, Table, cell_value
from mtljax.utils.bounded_reading import check_bytes, stored_bytes
from mtljax.utils.text import normalized, shortened

LARGE_GROUP = 2**27
"""Size of a row group from which access to single images is slow."""


class _Columns(NamedTuple):
    """Columns of a file by the way in which they are read."""

    plain: list[str]
    """Columns whose cells become Python objects, as paths."""
    images: dict[str, str]
    """Column of image files -> path of its bytes."""
    unusable: dict[str, str]
    """Column -> type, of other columns with bytes."""


def read_parquet(path: Path, notes: NoteCounter) -> Table:
    """Reads all columns but image files, which are read on access.

    Image files are columns of bytes, or structs of bytes and path as written by Hugging Face
    `datasets`, whose class names are used as well.
    """
    with open_parquet(path) as file:
        schema, metadata = file.schema_arrow, file.metadata
        names = [normalized(name) for name in schema.names]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(f"two columns have the name {shortened(min(repeated))!r}")
        columns = _columns(schema)
        _check_size(path, metadata, columns)
        features = _features(schema)
        classes = {name: _class_names(feature) for name, feature in features.items()}
        rows: list[Row] = []
        for group in range(metadata.num_row_groups):
            for cells in _read_group(path, file, group, columns):
                for name in classes.keys() & cells.keys():
                    cells[name] = _with_names(cells[name], features[name], classes[name])
                cells = {normalized(name): cell_value(value) for name, value in cells.items()}
                rows.append(Row(len(rows) + 1, cells, path))
        _warn_of_large_groups(path, metadata, columns, notes)
    return Table(
        path,
        tuple(rows),
        tuple(names),
        class_names={normalized(name): values for name, values in classes.items()},
        unusable={normalized(name): kind for name, kind in columns.unusable.items()},
    )


def _columns(schema: Any) -> _Columns:
    from pyarrow import types

    is_bytes = lambda kind: (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or "binary_view" in str(kind)
    )
    columns = _Columns([], {}, {})
    for field in schema:
        inner = {
            field.type.field(i).name: field.type.field(i).type for i in range(field.type.num_fields)
        }
        if is_bytes(field.type):
            columns.images[field.name] = field.name
        elif types.is_struct(field.type) and is_bytes(inner.get("bytes", field.type)):
            columns.images[field.name] = f"{field.name}.bytes"
            columns.plain.extend([f"{field.name}.path"] if "path" in inner else [])
        elif "binary" in str(field.type):
            columns.unusable[field.name] = shortened(str(field.type))
        else:
            columns.plain.append(field.name)
    return columns


def _check_size(path: Path, metadata: Any, columns: _Columns) -> None:
    """Raises ValueError for a table that claims more cells than its file can hold."""
    images = set(columns.images.values())
    size = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        chunks = map(group.column, range(group.num_columns))
        size += sum(c.total_uncompressed_size for c in chunks if c.path_in_schema not in images)
    # A cell becomes a Python object, even if it is stored in a few bits.
    cells = metadata.num_rows * metadata.num_columns
    check_bytes(max(size, 64 * cells), stored_bytes(path))


def _read_group(path: Path, file: Any, group: int, columns: _Columns) -> list[dict[str, Any]]:
    """Returns the cells of the rows of a row group."""
    count = file.metadata.row_group(group).num_rows
    rows = file.read_row_group(group, columns=columns.plain).to_pylist()
    if len(rows) != count:
        raise ValueError(f"row group {group} has {len(rows)} rows, but claims {count}")
    for column, inner in columns.images.items():
        has_bytes = _has_bytes(path, file, group, inner)
        for index, row in enumerate(rows):
            name = (row.get(column) or {}).get("path") if inner != column else None
            if has_bytes is None or has_bytes[index]:
                row[column] = EncodedImage(
                    path, inner, group, index, shortened(name or column, 100)
                )
            else:
                row[column] = name
    return rows


def _has_bytes(path: Path, file: Any, group: int, column: str) -> Sequence[bool] | None:
    """Returns whether each row has bytes; None if all have, which the metadata usually states."""
    metadata = file.metadata.row_group(group)
    for chunk in map(metadata.column, range(metadata.num_columns)):
        if chunk.path_in_schema == column:
            statistics = chunk.statistics
            if statistics is not None and statistics.has_null_count and not statistics.null_count:
                return None
    return read_group(path, column, group).is_valid().to_pylist()


def _warn_of_large_groups(path: Path, metadata: Any, columns: _Columns, notes: NoteCounter) -> None:
    """Notes row groups from which single images are read slowly."""
    images = set(columns.images.values())
    sizes = [
        chunk.total_uncompressed_size
        for group in map(metadata.row_group, range(metadata.num_row_groups))
        for chunk in map(group.column, range(group.num_columns))
        if chunk.path_in_schema in images
    ]
    if sum(sizes) > CACHE_BYTES and max(sizes) > LARGE_GROUP:
        notes.add(
            "warning",
            f"{path.name} has up to {max(sizes) // 2**20} MiB of images in a row group, which is "
            "read for each image: reading is slow; write it with row_group_size=100",
        )


def _features(schema: Any) -> dict[str, Any]:
    """Returns the description of each column with classes, as written by Hugging Face `datasets`.

    It is {"_type": "ClassLabel", "names": [...]}, or this in a list (`feature`) or in a dict.
    """
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {name: features[name] for name in schema.names if _class_names(features.get(name))}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def _class_names(feature: Any) -> tuple[str, ...]:
    """Returns the names of the classes in a feature, () without or with several lists of them."""
    if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
        return tuple(normalized(str(name)) for name in feature.get("names") or ())
    inner = feature.values() if isinstance(feature, dict) else feature
    inner = inner if not isinstance(inner, str) and isinstance(inner, Iterable) else ()
    candidates = {names for names in map(_class_names, inner) if names}
    return candidates.pop() if len(candidates) == 1 else ()


def _with_names(value: Any, feature: Any, names: tuple[str, ...]) -> Any:
    """Returns a cell with the names of classes; several classes as {name: 0 or 1}."""
    value = _renamed(value, feature, names)
    inner = feature[0] if isinstance(feature, list) else feature.get("feature")
    has_classes = isinstance(inner, dict) and inner.get("_type") == "ClassLabel"
    if has_classes and isinstance(value, list) and all(name in names for name in value):
        return {name: int(name in value) for name in names}
    return value


def _renamed(value: Any, feature: Any, names: tuple[str, ...]) -> Any:
    """Returns nested values with names for the indices of classes; -1 is a missing label."""
    if isinstance(feature, list):
        feature = {"feature": feature[0]}
    if not isinstance(feature, dict) or value is None:
        return value
    if feature.get("_type") == "ClassLabel":
        if not isinstance(value, int) or not -1 <= value < len(names):
            return value
        return names[value] if value >= 0 else None
    inner = feature.get("feature", feature)
    if isinstance(value, list):
        return [_renamed(item, inner, names) for item in value]
    if not isinstance(value, dict) or not isinstance(inner, dict):
        return value
    # A list of dicts is stored as a dict of lists.
    wrap = (lambda x: {"feature": x}) if "feature" in feature else (lambda x: x)
    return {key: _renamed(item, wrap(inner.get(key)), names) for key, item in value.items()}
