"""Multi-MNIST: two overlapping handwritten digits per image, one classification task for each.

Data set of Sabour et al., 2017 (arXiv:1710.09829), a multi-task benchmark since Sener & Koltun,
2018 (arXiv:1810.04650), with 36x36 pixels as in Lin et al., 2019 (arXiv:1912.12854). Reads the four
files of MNIST (`train-images-idx3-ubyte.gz` etc.) from the folder `mnist`, in the current directory
or in `$MTLJAX_DATA`. For MNIST + Fashion, which combines items of both data sets, pass

    --data.source "multi:first='idx:mnist',second='idx:/usr/share/datasets/fashion-mnist'"

python -m mtljax.main --experiment multi_mnist
"""

from mtljax.config import Data, Experiment
from mtljax.tasks import Classification

experiment = Experiment(
    name="multi_mnist",
    tasks=(
        Classification(name="left", num_classes=10),
        Classification(name="right", num_classes=10),
    ),
    data=Data(
        source="multi:'idx:mnist',images=60000",
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
