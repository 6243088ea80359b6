"""Tasks: loss, metrics, head and label handling of each type of prediction; one file per type."""

from mtljax.tasks.base import Task
from mtljax.tasks.classification import Classification
from mtljax.tasks.depth import Depth
from mtljax.tasks.detection import Detection
from mtljax.tasks.edges import Edges
from mtljax.tasks.keypoints import Keypoints
from mtljax.tasks.metric import Metrics, MetricSpec
from mtljax.tasks.multilabel import MultiLabel
from mtljax.tasks.normals import Normals
from mtljax.tasks.reconstruction import Reconstruction
from mtljax.tasks.regression import Regression
from mtljax.tasks.saliency import Saliency
from mtljax.tasks.segmentation import Segmentation

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "regression": Regression,
    "multilabel": MultiLabel,
    "segmentation": Segmentation,
    "depth": Depth,
    "normals": Normals,
    "edges": Edges,
    "saliency": Saliency,
    "keypoints": Keypoints,
    "detection": Detection,
    "reconstruction": Reconstruction,
}
"""Name -> class of a task."""

__all__ = [
    "TASKS", "Classification", "Depth", "Detection", "Edges", "Keypoints", "MetricSpec", "Metrics",
    "MultiLabel", "Normals", "Reconstruction", "Regression", "Saliency", "Segmentation", "Task",
]  # fmt: skip
