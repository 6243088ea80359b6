"""Edge detection: edge or not, per pixel."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import scipy  # subpackages are imported on first use, which keeps start-up fast
from jaxtyping import Array, Bool, Float, Num

from mtljax.tasks import checks
from mtljax.tasks.binary_map import BinaryMap, PositiveWeight, exceeds
from mtljax.tasks.metric import Metrics, MetricSpec, TaskMetrics
from mtljax.tasks.streaming import PerExample


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edges(BinaryMap):
    """Edge or not, per pixel. Output: logits [B, H, W]. Labels: 0 or 1, [B, H, W].

    Loss and changes of size: those of `BinaryMap`.

    Metrics: for each threshold, predicted edge pixels are matched one to one with true ones at most
    `tolerance` away, as many as possible; with matches m, predictions p and truths t,
    F = 2m / (p + t). `ods` is the best F over thresholds of the data set's counts; `ois` takes each
    image at its best threshold, adds up the counts and computes their F. Predictions are not
    thinned, so an edge three pixels wide costs precision. Matching runs on the host.

    References:
      Martin et al., 2004, "Learning to Detect Natural Image Boundaries"; Arbelaez et al., 2011,
      "Contour Detection and Hierarchical Image Segmentation", for ODS and OIS. They use a
      matching of least cost, whose number of matches is maximized here.
    """

    positive_weight: PositiveWeight = 0.95
    """Weight of edges against other pixels, in (0, 1); edges are rare. `balanced`: the fraction of
    other pixels in the training labels."""
    tolerance: float = 0.0075
    """Largest distance of a match, as a fraction of the image diagonal, but at least one pixel.
    BSDS500 uses 0.0075, NYUv2 0.011."""
    thresholds: int = 19
    """Number of evenly spaced thresholds in (0, 1); papers use 99, which takes 5 times as long."""

    main_metric = "ods"
    metric_specs = {
        "ods": MetricSpec("F at the best threshold of all", higher_is_better=True),
        "ois": MetricSpec("F at each image's best threshold", higher_is_better=True),
        "ods_threshold": MetricSpec("best threshold of all"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_setting(self, "thresholds", 1 <= self.thresholds <= 255, "in 1..255")
        checks.require_least(self, 0, "tolerance")

    @property
    def limits(self) -> Float[np.ndarray, " K"]:
        return np.arange(1, self.thresholds + 1) / (self.thresholds + 1)

    @property
    def metrics(self) -> Metrics:
        return _Boundaries(self.limits, self.tolerance)


class _Boundaries(PerExample):
    """True edge pixels of each image, and per threshold the predicted and matched ones."""

    names = ("ods", "ois", "ods_threshold")

    def __init__(self, limits: Float[np.ndarray, " K"], tolerance: float):
        self.limits, self.tolerance = limits, tolerance

    def describe(self, output: Array, label: Array) -> dict[str, Array]:
        # The metrics depend on a probability only through the number of thresholds below it.
        level = exceeds(output, self.limits).sum(-1).astype(jnp.uint8)
        return {"level": level, "truth": label != 0}

    def compress(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        shape = (len(rows["truth"]), len(self.limits))
        matched, predicted = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for i, (level, truth) in enumerate(zip(rows["level"], rows["truth"], strict=True)):
            distance = max(1.0, self.tolerance * float(np.hypot(*truth.shape)))
            for k in range(len(self.limits)):
                edges = level > k
                predicted[i, k] = edges.sum()
                same = k and predicted[i, k] == predicted[i, k - 1]
                matched[i, k] = matched[i, k - 1] if same else match(edges, truth, distance)
        true = rows["truth"].sum((1, 2), dtype=np.int64)
        return {"matched": matched, "predicted": predicted, "true": true}

    def compute_from_rows(self, rows: dict[str, np.ndarray]) -> TaskMetrics:
        matched, predicted, true = rows["matched"], rows["predicted"], rows["true"]
        f = _f_measure(matched.sum(0), predicted.sum(0), true.sum())
        best = np.arange(len(true)), _f_measure(matched, predicted, true[:, None]).argmax(1)
        return {
            "ods": float(f.max()),
            "ois": float(_f_measure(matched[best].sum(), predicted[best].sum(), true.sum())),
            "ods_threshold": float(self.limits[f.argmax()]),
        }


def _f_measure(
    matched: Num[np.ndarray, "..."], predicted: Num[np.ndarray, "..."], true: Num[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """2 matched / (predicted + true); 1 for 0 / 0."""
    total = np.asarray(predicted + true)
    return np.where(total > 0, 2 * matched / np.maximum(total, 1), 1.0)


def match(
    predicted: Bool[np.ndarray, "H W"], true: Bool[np.ndarray, "H W"], distance: float
) -> int:
    """Returns the maximum number of disjoint pairs of pixels at most `distance` pixels apart."""
    reach = int(distance)
    steps = np.arange(-reach, reach + 1)
    near = [(y, x) for y in steps for x in steps if y * y + x * x <= distance * distance]
    width = true.shape[1] + 2 * reach
    index = np.where(true, true.cumsum().reshape(true.shape) - 1, -1)
    index = np.pad(index, reach, constant_values=-1)

    # A row for each predicted pixel: the indices of the true ones around it, -1 for none.
    y, x = np.nonzero(predicted)
    offsets = [dy * width + dx for dy, dx in near]
    candidates = index.ravel()[((y + reach) * width + x + reach)[:, None] + offsets]
    candidates = candidates[(candidates >= 0).any(1)]
    valid = candidates >= 0
    # 32-bit indices: scipy 1.14 matches no others.
    columns = candidates[valid].astype(np.int32)
    starts = np.append(0, valid.sum(1).cumsum()).astype(np.int32)
    graph = scipy.sparse.csr_array(
        (np.ones(len(columns), np.int8), columns, starts), shape=(len(candidates), int(true.sum()))
    )
    matches = scipy.sparse.csgraph.maximum_bipartite_matching(graph, perm_type="column")
    return int((matches >= 0).sum())
