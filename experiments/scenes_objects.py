"""Rendered indoor scenes: object bounding boxes, and the center of the largest object per kind.

Takes less than ten minutes on two CPU cores.

python -m mtljax.main --experiment scenes_objects
"""

from mtljax.config import Data, Experiment
from mtljax.data.scenes import KINDS
from mtljax.tasks import Detection, Keypoints

DECODER = {"levels": 3, "width": 48}

experiment = Experiment(
    name="scenes_objects",
    tasks=(
        Detection(name="objects", num_classes=len(KINDS), class_names=KINDS, most=20, **DECODER),
        Keypoints(
            name="centers",
            num_keypoints=len(KINDS),
            stride=4,
            sigma=1.0,
            mirror="keep",
            **DECODER,
        ),
    ),
    data=Data(source="scenes:train=8192", batch_size=16, augment=("flip",)),
    trunk="cnn:widths=(16,32,64,128,128),norm=batch",
    steps=2000,
    optimizer="adamw:weight_decay=1e-2",
    learning_rate=2e-3,
    schedule="cosine:warmup=100",
    ema=0.99,
    log_every=25,
    eval_every=500,
)
