"""Cityscapes: 7 classes per pixel and inverse depth of street scenes.

The multi-task benchmark of MTAN (Liu et al., 2019, arXiv:1803.10704): 2,975 images to train on and
500 to test on, 128x256 pixels, zooms of 1, 1.2 or 1.5 and mirroring, L1 on inverse depth; a
dilated ResNet-50 with an ASPP head per task, batches of 64, Adam at 1e-4, halved after 100 of 200
epochs, as in LibMTL (arXiv:2203.14338). A zoom divides the label as it does in their code, although
what is nearer has a larger inverse depth. There the best or last epochs on the test images are
reported; here a tenth of the training images, drawn at random, chooses the checkpoint.

It reads `{train,val}/{image,label,depth}/N.npy` in the folder `cityscapes`, here or in
`$MTLJAX_DATA`, as https://github.com/lorenmt/mtan links to; where the labels are in `label_7`,
write `--data.labels.segmentation label_7`.

python -m mtljax.main --experiment cityscapes
"""

from mtljax.config import Data, Experiment
from mtljax.tasks import Depth, Segmentation

experiment = Experiment(
    name="cityscapes",
    tasks=(
        Segmentation(name="segmentation", num_classes=7, ignore=-1, decoder="aspp"),
        Depth(name="depth", center=0.1, floor=1e-4, decoder="aspp"),
    ),
    data=Data(
        source="npy_folders:cityscapes",
        labels={"segmentation": "label"},
        batch_size=64,
        augment=("crop:zooms=(1.0,1.2,1.5)", "flip"),
        keep_on_device="no",
        workers=4,
    ),
    trunk="resnet50:output_stride=8",
    steps=8400,
    optimizer="adam",
    learning_rate=1e-4,
    schedule="step:every=4200,factor=0.5",
    eval_every=420,
)
