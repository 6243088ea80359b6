"""Description of the images that a network takes: input.json of a run folder."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtljax.data.folds import require_same_folds
from mtljax.utils.bounded_reading import read_json
from mtljax.utils.files import write_json

INPUT = "input.json"
"""Name of the file with the `ImageSpec`."""
REMEDY = "delete it and train again with the same --workdir"
"""What to do with a run folder without it, for messages."""


class ImageSpec(NamedTuple):
    """Images that a network takes."""

    shape: tuple[int, int, int]
    """Height, width, channels."""
    dtype: str
    """NumPy type of the pixels."""
    low: float
    """Value of black."""
    high: float
    """Value of white."""
    folds: str = ""
    """Hash of the division of the data into folds, in a cross-validation."""


def write_input(path: Path, spec: ImageSpec) -> None:
    """Writes input.json to a run folder."""
    values = {name: value for name, value in spec._asdict().items() if value != ""}
    write_json(path / INPUT, values)


def check_folds(path: Path, folds: str) -> None:
    """Raises ValueError if a folder holds a run of a cross-validation with other folds."""
    if folds and (path / INPUT).exists():
        require_same_folds(str(path), read_input(path).folds, folds)


def read_input(path: Path) -> ImageSpec:
    """Returns the images that a run takes; raises ValueError if input.json is unusable."""
    spec = read_object(path / INPUT)
    try:
        height, width, channels = map(int, spec["shape"])
        # Runs of version 0.1.0 have no dtype; their networks take any.
        dtype = str(np.dtype(spec.get("dtype", "float32")))
        low, high, folds = float(spec["low"]), float(spec["high"]), str(spec.get("folds", ""))
        return ImageSpec((height, width, channels), dtype, low, high, folds)
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path / INPUT} lacks shape, low or high; {REMEDY}") from None


def read_object(path: Path) -> dict[str, Any]:
    """Returns a JSON object of a run folder; raises ValueError if it is damaged."""
    value = read_json(path, f"; {REMEDY}")
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged (not a JSON object); {REMEDY}")
    return value
