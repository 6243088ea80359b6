"""Parsing of multi-label cells: a number for each class, or the names of the classes that apply."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mtljax.tasks import parsing
from mtljax.utils.registry import nearest
from mtljax.utils.text import listed, shortened

SEPARATORS = ";|,"
"""Separators of the classes in a cell."""
FLAGS = re.compile(r"|-1|0|1|nan|true|false", re.IGNORECASE)
"""Text of a cell for one class; empty or nan if it is not known."""


def cells_of_classes(value: Any, names: Sequence[str], count: int) -> Sequence[Any]:
    """Returns the cell of each class: a number, True, False, or None if it is not known.

    Args:
      value: Numbers or cells of each class, {class name: cell}, text such as "cat;dog", or a list
        of class names.
      names: Names of the classes, () without names.
      count: Number of classes; 0: not known yet.

    Raises:
      ValueError: A class is unknown, or the number of cells is wrong.
    """
    if isinstance(value, Mapping):
        return _of_mapping(value, names)
    parts, is_separated = _parts(value, names)
    texts = [_text(part) for part in parts]
    if is_separated:
        is_list = all(map(FLAGS.fullmatch, texts)) and len(texts) == count
        is_list &= not all(text in names for text in texts)
        if is_list and sorted(texts) == ["0", "1"]:
            raise ValueError(f"{value!r} may be two classes, or a number for each; write names")
    else:
        is_list = len(parts) > 0 and not any(map(_is_name, parts, [names] * len(parts)))
    if is_list:
        if count and len(parts) != count:
            raise ValueError(f"{len(parts)} numbers for {count} classes")
        return parts
    if not count:
        raise ValueError("names of classes, but the task has no classes: set class_names")
    chosen = {parsing.class_index(text, names) for text in texts if text}
    wrong = [index for index in sorted(chosen) if not 0 <= index < count]
    if wrong:
        raise ValueError(f"class {wrong[0]}; must be in 0..{count - 1}")
    return [i in chosen for i in range(count)]


def flag(cell: Any) -> float | None:
    """Returns the number in the cell of one class, None if it is empty or NaN."""
    text = _text(cell)
    if FLAGS.fullmatch(text):
        if text.lower() in ("", "nan"):
            return None
        return float({"true": 1, "false": 0}.get(text.lower(), text))
    number = parsing.number(cell)
    return None if np.isnan(number) else number


def names_in(value: Any) -> Iterable[str]:
    """Returns the class names in a cell, for tasks whose class names are those of the data.

    Raises:
      ValueError: Commas may separate names, or be a part of them.
    """
    if isinstance(value, Mapping):
        return map(str, value)
    if value is None or (not isinstance(value, (list, tuple)) and np.ndim(value)):
        return ()
    try:
        parts, is_separated = _parts(value, ())
    except ValueError:
        return ()  # a fault of this row only
    if all(FLAGS.fullmatch(_text(part)) for part in parts):
        return ()
    if is_separated and len(parts) == 1 and "," in parts[0]:
        text = shortened(parts[0])
        raise ValueError(f"{text!r}: set class_names, or separate classes by semicolons")
    return filter(None, map(_text, parts))


def _of_mapping(value: Mapping[Any, Any], names: Sequence[str]) -> list[Any]:
    if not names:
        raise ValueError("values by class name, but the task has no class_names: set them")
    missing = [name for name in names if name not in value]
    if missing:
        raise ValueError(f"no value for {listed(missing)}; write null if it is not known")
    for name in value:
        if name not in names:
            raise ValueError(f"unknown class {name!r}{nearest(str(name), names)}")
    return [value[name] for name in names]


def _parts(value: Any, names: Sequence[str]) -> tuple[Sequence[Any], bool]:
    """Returns the parts of a cell, and True if it is text with separators or one class name."""
    if isinstance(value, bytes):
        value = value.decode()
    elif not isinstance(value, (list, tuple)) and np.ndim(value) == 0:
        value = _text(value)  # 2 in JSON is 2 in a CSV file
    if not isinstance(value, str):
        return (value if isinstance(value, (list, tuple)) else np.ravel(value).tolist()), False
    text = value.strip()
    if text.startswith("[") and text not in names:
        try:
            return parsing.read_json(text), False
        except ValueError:
            if re.search("['\"]", text):
                raise
            return text.strip("[]").split(), False
    if text in names:
        return [text], True
    if all(map(FLAGS.fullmatch, text.split())):
        return text.split(), False
    used = "".join(names)
    separators = "".join(s for s in (SEPARATORS if names else ";|") if s not in used)
    parts = re.split(f"[{separators}]", text) if separators else [text]
    return [part.strip() for part in parts], True


def _is_name(part: Any, names: Sequence[str]) -> bool:
    """True for text that is a class name, or that cannot be a number."""
    text = _text(part)
    if not isinstance(part, str) or FLAGS.fullmatch(text):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return text in names


def _text(part: Any) -> str:
    """Returns a cell as text, "" for None."""
    if part is None:
        return ""
    if isinstance(part, (bool, np.bool_)):
        return str(bool(part))
    text = parsing.class_text(part)
    return repr(part) if text is None else text
