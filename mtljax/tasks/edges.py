"""Edges: is this pixel on a boundary?"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from mtljax.tasks.binary_map import BinaryMap, passes
from mtljax.tasks.metric_spec import MetricSpec
from mtljax.tasks.streaming import PerExample


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edges(BinaryMap):
    """Edge or not, per pixel. Output: logits [B, H, W]. Labels: 0 or 1, [B, H, W].

    Loss: that of `BinaryMap`.

    Metrics: for each threshold, predicted edge pixels are matched one to one with true ones at most
    `tolerance` away, as many as possible; with matches m, predictions p and truths t,
    F = 2m / (p + t). `ods` is the best F over thresholds of the data set's counts; `ois` takes each
    image at its own best threshold, adds up the counts and gives their F. Predictions are not
    thinned, so an edge drawn three pixels wide costs precision. The matching runs on the host, for
    each image and threshold.

    References:
      Martin et al., 2004, "Learning to Detect Natural Image Boundaries"; Arbelaez et al., 2011,
      "Contour Detection and Hierarchical Image Segmentation", for ODS and OIS. Their matching
      is of least cost; its number of matches is what this one maximises.
    """

    positive_weight: float = 0.95
    """Weight of edges against the rest, in (0, 1); edges are rare."""
    tolerance: float = 0.0075
    """Largest distance of a match, as a share of the image's diagonal, but at least one pixel.
    0.0075 is BSDS500's, 0.011 NYUv2's."""
    thresholds: int = 19
    """Evenly spaced in (0, 1); papers have 99, which takes as much longer."""

    main_metric = "ods"
    metric_specs = {
        "ods": MetricSpec("F at the best threshold of all", higher_is_better=True),
        "ois": MetricSpec("F at each image's best threshold", higher_is_better=True),
        "ods_threshold": MetricSpec("best threshold of all"),
    }

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.thresholds <= 255:
            raise ValueError(
                f"task {self.name!r}: thresholds must be in 1..255, not {self.thresholds}"
            )
        if not self.tolerance >= 0:
            raise ValueError(f"task {self.name!r}: tolerance must be >= 0, not {self.tolerance}")

    @property
    def limits(self):
        return np.arange(1, self.thresholds + 1) / (self.thresholds + 1)

    @property
    def metrics(self):
        return _Boundaries(self.limits, self.tolerance)


class _Boundaries(PerExample):
    """Of each image: the number of true edge pixels, and per threshold those predicted, matched."""

    names = ("ods", "ois", "ods_threshold")

    def __init__(self, limits: np.ndarray, tolerance: float):
        self.limits, self.tolerance = limits, tolerance

    def describe(self, output, label):
        # The number of thresholds that a pixel passes is all that is needed of its probability.
        return {
            "level": passes(output, self.limits).sum(-1).astype(jnp.uint8),
            "truth": label != 0,
        }

    def digest(self, rows):
        shape = (len(rows["truth"]), len(self.limits))
        matched, predicted = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for i, (level, truth) in enumerate(zip(rows["level"], rows["truth"], strict=True)):
            distance = max(1.0, self.tolerance * float(np.hypot(*truth.shape)))
            for k in range(len(self.limits)):
                edges = level > k
                predicted[i, k] = edges.sum()
                same = k and predicted[i, k] == predicted[i, k - 1]
                matched[i, k] = matched[i, k - 1] if same else match(edges, truth, distance)
        return {
            "matched": matched,
            "predicted": predicted,
            "true": rows["truth"].sum((1, 2), dtype=np.int64),
        }

    def summarise(self, rows):
        matched, predicted, true = rows["matched"], rows["predicted"], rows["true"]
        f = _f_measure(matched.sum(0), predicted.sum(0), true.sum())
        own = np.arange(len(true)), _f_measure(matched, predicted, true[:, None]).argmax(1)
        return {
            "ods": float(f.max()),
            "ois": float(_f_measure(matched[own].sum(), predicted[own].sum(), true.sum())),
            "ods_threshold": float(self.limits[f.argmax()]),
        }


def _f_measure(matched, predicted, true):
    """1 where there is nothing to find and nothing was found."""
    total = np.asarray(predicted + true)
    return np.where(total > 0, 2 * matched / np.maximum(total, 1), 1.0)


def match(
    predicted: Bool[np.ndarray, "H W"], true: Bool[np.ndarray, "H W"], distance: float
) -> int:
    """The most pairs of one predicted and one true pixel, at most `distance` pixels apart."""
    reach = int(distance)
    steps = np.arange(-reach, reach + 1)
    near = [(y, x) for y in steps for x in steps if y * y + x * x <= distance * distance]
    width = true.shape[1] + 2 * reach
    number = np.pad(
        np.where(true, true.cumsum().reshape(true.shape) - 1, -1), reach, constant_values=-1
    )

    # A row for each predicted pixel: the numbers of the true ones around it, -1 for none.
    y, x = np.nonzero(predicted)
    around = [dy * width + dx for dy, dx in near]
    candidates = number.ravel()[((y + reach) * width + x + reach)[:, None] + around]
    candidates = candidates[(candidates >= 0).any(1)]
    there = candidates >= 0
    columns, starts = candidates[there], np.append(0, there.sum(1).cumsum())
    graph = csr_array(
        (np.ones(len(columns), np.int8), columns, starts), shape=(len(candidates), int(true.sum()))
    )
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
