"""Handwritten digits: the class of the digit and its value as a number.

python -m mtljax.main --experiment digits
"""

from mtljax.config import Data, Experiment
from mtljax.tasks import Classification, Regression

experiment = Experiment(
    name="digits",
    tasks=(
        Classification(name="digit", num_classes=10),
        Regression(name="value", center=4.5, scale=2.9, kind="l1"),
    ),
    data=Data(source="digits", batch_size=64, augment=("affine:shift=0.7,rotate=7,zoom=0.07",)),
    trunk="cnn",
    steps=600,
    optimizer="adamw:weight_decay=1e-2",
    learning_rate=6e-3,
    schedule="cosine:warmup=50",
    ema=0.98,
)
