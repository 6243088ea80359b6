"""Predictions."""

from typing import Any, NamedTuple

import numpy as np


class Predictions(NamedTuple):
    """Examples and what the model says of them, as NumPy arrays."""

    images: np.ndarray
    outputs: dict[str, Any]
    labels: dict[str, Any]
    present: dict[str, np.ndarray]
