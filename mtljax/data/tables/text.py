"""Readers of tables in text files: CSV and JSON lines, in any encoding that is declared."""

import codecs
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mtljax.data.notes import NoteCounter
from mtljax.data.rows import Row, Table, cell_value
from mtljax.utils.text import normalized, shortened

# UTF-32 first: its mark starts with that of UTF-16.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order mark -> encoding."""
CANDIDATES = ("cp1252", "cp1251", "shift_jis")
"""Encodings that a message about a file in an unknown one proposes."""
DELIMITERS = ",;\t|"
"""Delimiters of columns, the most common first."""
SAMPLE_ROWS = 50
"""Number of rows by which the delimiter is detected."""


def read_text(path: Path, encoding: str, notes: NoteCounter) -> str:
    """Returns the text of a file: in the encoding of its byte order mark, `encoding`, or UTF-8.

    Raises:
      ValueError: The file has another encoding, which is never guessed: it changes class names.
    """
    data = path.read_bytes()
    marked = next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
    try:
        text = data.decode(marked or encoding or "utf-8")
    except LookupError:
        raise ValueError(
            f"{path}: encoding {encoding!r} is not known to Python; examples: cp1252, cp1251, "
            "latin-1, shift_jis, utf-16-le"
        ) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        fault = f"{path} line {line} is not encoded in {marked or encoding or 'UTF-8'}"
        raise ValueError(f"{fault}; {_proposal(data, error.start)}") from None
    except UnicodeError:
        raise ValueError(f"{path} is not encoded in {marked or encoding}") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(
            f"{path} line {line} has NUL characters: no text, or UTF-16 without a byte order mark, "
            "which encoding=utf-16-le (or utf-16-be) reads"
        )
    if encoding and not marked and not text.isascii():
        _compare_with_utf8(path, data, text, encoding, notes)
    if "\ufeff" in text:
        notes.add("dropped", "byte order marks inside a table", path.name, text.count("\ufeff"))
        text = text.replace("\ufeff", "")
    return text


def _proposal(data: bytes, start: int) -> str:
    """Returns the end of a message: the word at `start` in several encodings."""
    before, after = data[max(start - 20, 0) : start], data[start : start + 20]
    separators = b" ,;|\t\r\n\"'"
    first = max(before.rfind(bytes([c])) for c in separators) + 1
    ends = [i for i in (after.find(bytes([c])) for c in separators) if i >= 0]
    word = before[first:] + after[: min(ends, default=len(after))]
    readings = []
    for name in CANDIDATES:
        try:
            text = word.decode(name)
        except UnicodeDecodeError:
            continue
        if text.isprintable():
            readings.append(f"{text!r} in {name}")
    hint = f": a word is {', '.join(readings)}" if readings else ", such as cp1252 or cp1251"
    return f"name the encoding by encoding=NAME{hint}"


def _compare_with_utf8(
    path: Path, data: bytes, text: str, encoding: str, notes: NoteCounter
) -> None:
    """Notes that a file is valid in UTF-8, too, and then has another content."""
    try:
        other = data.decode("utf-8")
    except UnicodeDecodeError:
        return
    if other != text:
        notes.add("warning", f"{path.name} is valid UTF-8, but is read with encoding={encoding}")


def read_csv(path: Path, encoding: str, notes: NoteCounter) -> Table:
    """Reads cells between commas, semicolons, tabs or bars; rows without content are skipped.

    A first line `sep=;` sets the delimiter, as in spreadsheets. Columns without a name, such as the
    index of pandas, are left out. A row with another number of cells than the header has a fault.
    """
    text = read_text(path, encoding, notes)
    delimiter, skipped = _declared_delimiter(text)
    delimiter = delimiter or _detected_delimiter(path, text)
    lines = _parse(path, text, delimiter)
    header: list[str] | None = None
    rows = []
    for number, cells in enumerate(lines, 1):
        if number <= skipped or not any(map(str.strip, cells)):
            continue
        if header is None:
            header = _header(path, number, cells)
            continue
        cells = _without_empty_end(cells, len(header))
        named = dict(zip(header, map(cell_value, cells), strict=False))
        named.pop("", None)
        counts = f"{len(cells)} cells, but the header has {len(header)}"
        rows.append(Row(number, named, path, "" if len(cells) == len(header) else counts))
    columns = tuple(filter(None, header or ()))
    return Table(path, tuple(rows), columns, has_decimal_commas=delimiter != ",")


def _declared_delimiter(text: str) -> tuple[str, int]:
    """Returns the delimiter of a first line `sep=;`, and the number of lines to skip."""
    first = text.partition("\n")[0].rstrip("\r")
    declared = first.lower().startswith("sep=") and first[4:] in DELIMITERS and len(first) == 5
    return (first[4:], 1) if declared else ("", 0)


def _detected_delimiter(path: Path, text: str) -> str:
    """Returns the delimiter that splits header and first rows into equal numbers of cells."""
    header = next(filter(str.strip, io.StringIO(text, newline=None)), "")
    outside_quotes = "".join(header.split('"')[::2])
    scores = []
    for delimiter in filter(outside_quotes.__contains__, DELIMITERS):
        counts = []
        try:
            for _, cells in zip(range(SAMPLE_ROWS), _parse(path, text, delimiter), strict=False):
                if any(map(str.strip, cells)):
                    counts.append(len(cells))
        except ValueError:
            pass  # quotes are valid only with the right delimiter
        if counts and counts[0] > 1:
            scores.append((counts.count(counts[0]), counts[0], delimiter))
    if not scores:
        return ","
    best = max(scores)[:2]
    delimiters = [delimiter for *score, delimiter in scores if tuple(score) == best]
    if len(delimiters) > 1:
        raise ValueError(
            f"{path} may have cells between {' or between '.join(map(repr, delimiters))}; "
            "state the delimiter in a first line, such as sep=;"
        )
    return delimiters[0]


def _parse(path: Path, text: str, delimiter: str) -> Iterator[list[str]]:
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True
    )
    try:
        yield from reader
    except csv.Error as error:
        reason = str(error).replace(f"'{delimiter}'", "a delimiter")
        raise ValueError(f"{path} line {reader.line_num}: {reason}; check the quotes") from None


def _header(path: Path, number: int, cells: Sequence[str]) -> list[str]:
    header = [normalized(name) for name in cells]
    repeated = {name for name in header if name and header.count(name) > 1}
    if repeated:
        name = shortened(min(repeated))
        raise ValueError(f"{path} row {number}: two columns have the name {name!r}")
    return header


def _without_empty_end(cells: list[str], count: int) -> list[str]:
    """Returns a row without the empty cells after the last column."""
    return cells if any(map(str.strip, cells[count:])) else cells[:count]


def read_jsonl(path: Path, encoding: str, notes: NoteCounter) -> Table:
    """Reads one JSON object per line; an invalid line is a row with a fault."""
    rows: list[Row] = []
    columns: dict[str, None] = {}
    for number, line in enumerate(io.StringIO(read_text(path, encoding, notes), newline=None), 1):
        if not line.strip():
            continue
        cells, fault = _read_object(line)
        columns.update(dict.fromkeys(filter(None, cells)))
        rows.append(Row(number, cells, path, fault))
    return Table(path, tuple(rows), tuple(columns))


def _read_object(line: str) -> tuple[dict[str, Any], str]:
    """Returns the cells of a JSON object, or the reason for which it is invalid."""
    try:
        cells = json.loads(line, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        return {}, f"invalid JSON: {error}"
    except ValueError as error:
        return {}, shortened(str(error), 100)
    except RecursionError:
        return {}, "invalid JSON: nested too deeply"
    return (
        (cells, "") if isinstance(cells, dict) else ({}, "must be a JSON object, one in each line")
    )


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object with normalized text; raises ValueError for a repeated name."""
    cells: dict[str, Any] = {}
    for name, value in pairs:
        name = normalized(name)
        if name in cells:
            raise ValueError(f"two values have the name {shortened(name)!r}")
        cells[name] = cell_value(value)
    return cells
