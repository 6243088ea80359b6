"""ELPV: real photographs of solar cells, from the PyPI package `elpv-dataset`."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from mtljax.data.base import LabelRequest, Source
from mtljax.data.file_examples import FileRows
from mtljax.data.sources.folder import source_of_rows
from mtljax.utils.bounded_reading import read_text
from mtljax.utils.registry import nearest

PACKAGE = "elpv_dataset"
TYPES = {"mono": 0, "poly": 1}
"""Monocrystalline and polycrystalline silicon, and their classes."""
TEST, VALIDATION = 0.25, 0.1
"""Shares: of all cells, and of those that are left."""


def elpv(size: int = 160, *, wanted: Sequence[LabelRequest]) -> Source:
    """Photographs of solar cells, grey: labels `defect` (a probability) and `type` (mono or poly).

    2,624 cells of 44 modules, 300x300 pixels, glowing under a current (electroluminescence), so
    that what is cracked or cut off is dark. `defect` is how likely the cell is defective: 0, 1/3,
    2/3 or 1. A quarter (656 cells) is test, as many as in the paper, and a tenth of the others is
    validation, drawn once and stratified by both labels. The data does not say which module a cell
    is of, so every split has cells of the same modules: results are for modules that are known.

    The photographs are CC BY-NC-SA 4.0: not for commercial use, to be shared alike. They are read
    where pip has put them and are no part of mtljax; reports show some of them.

    Args:
      size: Height and width that images are brought to.
      wanted: What the tasks want.

    References:
      Buerhop-Lutz et al., 2018, doi:10.4229/35thEUPVSEC20182018-5CV.3.15; Deitsch et al., 2019,
      arXiv:1807.02894
    """
    if size < 1:
        raise ValueError(f"source elpv: size must be >= 1, not {size}")
    table = _table()
    names, labels = _read(table)
    for task, key in wanted:
        if key not in labels:
            raise ValueError(
                f"source elpv has no labels {key!r} for task {task.name!r}{nearest(key, labels)}"
            )
    whole = FileRows(
        table=table,
        images=tuple(table.parent / name for name in names),
        numbers=tuple(range(1, len(names) + 1)),
        columns=tuple(labels[key] for _, key in wanted),
        tasks=tuple(task for task, _ in wanted),
        channels=1,
        size=(size, size),
    )
    whole.check()
    return source_of_rows(whole, _split(list(zip(*labels.values(), strict=True))))


def _table() -> Path:
    """The list of cells in the installed package."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ValueError(
            "source elpv reads the package elpv-dataset, which is not installed: "
            "pip install elpv-dataset (91 MB, CC BY-NC-SA 4.0: not for commercial use)"
        )
    return Path(found.submodule_search_locations[0]) / "data" / "labels.csv"


def _read(table: Path) -> tuple[list[str], dict[str, tuple[float, ...]]]:
    """File names, and each label of all cells: lines of a name, a probability and a type."""
    rows: list[tuple[str, float, int]] = []
    try:
        for line in read_text(table).splitlines():
            name, probability, kind = line.split()
            rows.append((name, float(probability), TYPES[kind]))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{table} is damaged in line {len(rows) + 1} ({error}): install elpv-dataset afresh"
        ) from None
    defects, types = tuple(row[1] for row in rows), tuple(float(row[2]) for row in rows)
    return [row[0] for row in rows], {"defect": defects, "type": types}


def _split(strata: Sequence[tuple[float, ...]]) -> dict[str, list[int]]:
    """Rows of each split, in which every combination of labels has its share."""
    from sklearn.model_selection import train_test_split

    def cut(rows: Sequence[int], share: float) -> list[list[int]]:
        kinds = [str(strata[row]) for row in rows]
        return train_test_split(rows, test_size=share, stratify=kinds, random_state=0)

    rest, test = cut(range(len(strata)), TEST)
    train, validation = cut(rest, VALIDATION)
    parts = {"train": train, "validation": validation, "test": test}
    return {name: sorted(rows) for name, rows in parts.items()}
