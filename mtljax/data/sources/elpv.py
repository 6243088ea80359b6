"""Source of the ELPV photographs of solar cells, from the PyPI package `elpv-dataset`."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from mtljax.data.base import LabelRequest, Source, require_labels
from mtljax.data.file_examples import FileExamples, source_of_files
from mtljax.data.lazy import tasks_of
from mtljax.data.notes import NoteCounter
from mtljax.utils.bounded_reading import read_text
from mtljax.utils.text import first_line

PACKAGE = "elpv_dataset"
"""Python package with the images."""
TYPES = {"mono": 0.0, "poly": 1.0}
"""Classes of monocrystalline and polycrystalline silicon."""
TEST, VALIDATION = 0.25, 0.1
"""Share of all cells, and share of the cells that are not test."""


def elpv(size: int = 160, *, requests: Sequence[LabelRequest]) -> Source:
    """Photographs of solar cells, grayscale: labels `defect` (probability) and `type` (mono, poly).

    2,624 cells of 44 modules, 300x300 pixels, photographed by electroluminescence: cracked or
    disconnected areas are dark. `defect` is the probability that the cell is defective: 0, 1/3, 2/3
    or 1. As in the paper, 25 % of the cells (656) are test; 10 % of the remaining ones are
    validation. Both are drawn once, stratified by both labels. The data does not identify the
    module of a cell, so all splits have cells of the same modules, and results hold for known
    modules only.

    The photographs are licensed under CC BY-NC-SA 4.0 (no commercial use). They are read from the
    installed package and are not part of mtljax; reports show some of them.

    Args:
      size: Height and width to resize images to.

    References:
      Buerhop-Lutz et al., 2018, doi:10.4229/35thEUPVSEC20182018-5CV.3.15; Deitsch et al., 2019,
      arXiv:1807.02894
    """
    if size < 1:
        raise ValueError(f"source elpv: size must be >= 1, not {size}")
    table = _find_table()
    names, labels = _read_table(table)
    require_labels("source elpv", requests, labels)
    images = tuple(table.parent / name for name in names)
    numbers = tuple(range(1, len(names) + 1))
    columns = tuple(labels[request.key] for request in requests)
    examples = FileExamples(table, images, numbers, columns, tasks_of(requests), 1, (size, size))
    parts = _stratified_split(list(zip(*labels.values(), strict=True)))
    return source_of_files(examples, parts, NoteCounter())


def _find_table() -> Path:
    """Returns the table of cells in the installed package."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "source elpv reads the package elpv-dataset, which is not installed: "
            "pip install elpv-dataset (91 MB, CC BY-NC-SA 4.0: not for commercial use)"
        )
    return Path(spec.submodule_search_locations[0]) / "data" / "labels.csv"


def _read_table(table: Path) -> tuple[list[str], dict[str, tuple[float, ...]]]:
    """Reads file names and labels; a line has a name, a probability and a type."""
    rows: list[tuple[str, float, float]] = []
    try:
        for line in read_text(table).splitlines():
            name, probability, kind = line.split()
            rows.append((name, float(probability), TYPES[kind]))
    except (OSError, ValueError, KeyError) as error:
        place = f"{table} line {len(rows) + 1}"
        raise ValueError(
            f"{place} is damaged ({first_line(error)}): reinstall elpv-dataset"
        ) from None
    names, defects, types = zip(*rows, strict=True)
    return list(names), {"defect": defects, "type": types}


def _stratified_split(strata: Sequence[tuple[float, ...]]) -> dict[str, list[int]]:
    """Returns the rows of each split; each has the same shares of all combinations of labels."""
    from sklearn.model_selection import train_test_split

    def cut(rows: Sequence[int], share: float) -> list[list[int]]:
        kinds = [str(strata[row]) for row in rows]
        return train_test_split(rows, test_size=share, stratify=kinds, random_state=0)

    remaining, test = cut(range(len(strata)), TEST)
    train, validation = cut(remaining, VALIDATION)
    return {"train": sorted(train), "validation": sorted(validation), "test": sorted(test)}
