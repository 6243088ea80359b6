"""Two overlapping handwritten digits per image, one classification task for each digit.

A small variant of Multi-MNIST on scikit-learn's digits, which need no download: two digits of 8x8
pixels, at the upper left and the lower right corner of a 12x12 image.

python -m mtljax.main --experiment multi_digits
"""

from mtljax.config import Data, Experiment
from mtljax.tasks import Classification

experiment = Experiment(
    name="multi_digits",
    tasks=(
        Classification(name="left", num_classes=10),
        Classification(name="right", num_classes=10),
    ),
    data=Data(
        source="multi:digits,canvas=12,images=6000",
        labels={"left": "left/digit", "right": "right/digit"},
        batch_size=64,
    ),
    trunk="cnn",
    steps=500,
    optimizer="adamw:weight_decay=1e-2",
    learning_rate=5e-3,
    schedule="cosine:warmup=50",
    ema=0.98,
)
