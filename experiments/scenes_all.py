"""Rendered indoor scenes: all available labels, twelve tasks of eleven kinds in one network.

python -m mtljax.main --experiment scenes_all
"""

from mtljax.config import Data, Experiment
from mtljax.data.scenes import CLASSES, KINDS, ROOM_TYPES
from mtljax.tasks import (
    Classification,
    Depth,
    Detection,
    Edges,
    Keypoints,
    MultiLabel,
    Normals,
    Reconstruction,
    Regression,
    Saliency,
    Segmentation,
)

FINE = {"levels": 4, "width": 24}
COARSE = {"levels": 3, "width": 48}

experiment = Experiment(
    name="scenes_all",
    tasks=(
        Segmentation(
            name="segmentation",
            num_classes=len(CLASSES),
            class_names=CLASSES,
            ignore=None,
            **FINE,
        ),
        Depth(name="depth", center=3.9, scale=2.5, **FINE),
        Normals(name="normals", **FINE),
        Edges(name="edges", positive_weight=0.85, thresholds=9, **FINE),
        Saliency(name="saliency", **FINE),
        Detection(name="objects", num_classes=len(KINDS), class_names=KINDS, **COARSE),
        Keypoints(name="centers", num_keypoints=len(KINDS), stride=4, sigma=1.0, **COARSE),
        MultiLabel(name="kinds", num_classes=len(KINDS), class_names=KINDS),
        Regression(name="counts", size=len(KINDS), center=0.9, scale=0.7),
        Regression(name="light", size=3, scale=0.5),
        Classification(name="room", num_classes=len(ROOM_TYPES), class_names=ROOM_TYPES),
        Reconstruction(name="image", peak=255.0, **FINE),
    ),
    data=Data(source="scenes:validation=256", batch_size=16),
    trunk="cnn:widths=(32,64,128,128),norm=batch,stride=2",
    balancer="uw",
    steps=2000,
    optimizer="adamw:weight_decay=1e-2",
    learning_rate=2e-3,
    schedule="cosine:warmup=100",
    log_every=25,
    eval_every=1000,
)
