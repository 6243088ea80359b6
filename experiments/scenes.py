"""Rendered indoor scenes: semantic segmentation, depth and surface normals.

A small version of the NYUv2 protocol: 64x64 pixels, nine classes, one trunk, one decoder per task,
equal weights. Takes minutes on two CPU cores, including rendering and the report.

python -m mtljax.main --experiment scenes
"""

from mtljax.config import Data, Experiment
from mtljax.data.scenes import CLASSES
from mtljax.tasks import Depth, Normals, Segmentation

DECODER = {"levels": 4, "width": 24}

experiment = Experiment(
    name="scenes",
    tasks=(
        Segmentation(
            name="segmentation",
            num_classes=len(CLASSES),
            class_names=CLASSES,
            ignore=None,
            **DECODER,
        ),
        Depth(name="depth", center=3.9, scale=2.5, **DECODER),
        Normals(name="normals", **DECODER),
    ),
    data=Data(source="scenes", batch_size=16, augment=("flip",)),
    trunk="cnn:widths=(24,48,96,128),norm=batch,stride=2",
    steps=1200,
    optimizer="adamw:weight_decay=1e-2",
    learning_rate=3e-3,
    schedule="cosine:warmup=50",
    log_every=25,
    eval_every=400,
)
