"""CIFAR-100: the fine class (100) and the coarse class (20) of each image.

50,000 images of 32x32 for training, the last tenth of which is the validation split, and 10,000 for
testing (Krizhevsky, 2009, "Learning Multiple Layers of Features from Tiny Images"); with the usual
augmentation: shifts of up to four pixels and horizontal flips.

python -m mtljax.main prepare --experiment cifar100    once, needs a network
python -m mtljax.main --experiment cifar100
"""

from mtljax.config import Data, Experiment
from mtljax.tasks import Classification

experiment = Experiment(
    name="cifar100",
    tasks=(
        Classification(name="fine", num_classes=100),
        Classification(name="coarse", num_classes=20),
    ),
    data=Data(
        source="tfds:cifar100",
        labels={"fine": "label", "coarse": "coarse_label"},
        batch_size=128,
        augment=("flip", "shift:pixels=4"),
    ),
    trunk="resnet18:stem=small",
    steps=20000,
    optimizer="sgd:momentum=0.9",
    learning_rate=0.1,
    schedule="cosine:warmup=500",
    eval_every=1000,
)
