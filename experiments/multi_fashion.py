"""Two overlapping pieces of clothing per image, one classification task for each.

Multi-Fashion as in Lin et al., 2019 (arXiv:1912.12854), on Fashion-MNIST (Xiao et al., 2017,
arXiv:1708.07747): 60,000 images of 36x36, composed of 54,000 training items; the remaining 6,000
items are used for validation, and the 10,000 test items for the test images. The files are those of
the Debian package (`apt-get install dataset-fashion-mnist`); for a different folder pass
`--data.source "multi:'idx:FOLDER'"`.

python -m mtljax.main --experiment multi_fashion
"""

from mtljax.config import Data, Experiment
from mtljax.tasks import Classification

CLASSES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)

experiment = Experiment(
    name="multi_fashion",
    tasks=(
        Classification(name="left", num_classes=10, class_names=CLASSES),
        Classification(name="right", num_classes=10, class_names=CLASSES),
    ),
    data=Data(
        source="multi:'idx:/usr/share/datasets/fashion-mnist',images=60000",
        labels={"left": "left/label", "right": "right/label"},
        batch_size=128,
    ),
    trunk="cnn",
    steps=3000,
    optimizer="adamw:weight_decay=1e-2",
    learning_rate=2e-3,
    schedule="cosine:warmup=100",
    eval_every=500,
)
