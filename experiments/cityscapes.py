"""Cityscapes: semantic segmentation (7 classes) and inverse depth of street scenes.

The multi-task benchmark of MTAN (Liu et al., 2019, arXiv:1803.10704): 2,975 training and 500 test
images of 128x256 pixels, zooms of 1, 1.2 or 1.5 and horizontal flips, L1 loss on inverse depth; a
dilated ResNet-50 with one ASPP head per task, batch size 64, Adam at 1e-4, halved after 100 of 200
epochs, as in LibMTL (arXiv:2203.14338). A zoom divides the depth label as in the code of MTAN,
although closer points have a larger inverse depth. MTAN and LibMTL report the best or last epochs
on the test images; here the checkpoint is selected on a random tenth of the training images.

Reads `{train,val}/{image,label,depth}/N.npy` from the folder `cityscapes`, in the current directory
or in `$MTLJAX_DATA`; https://github.com/lorenmt/mtan links to the files. If the labels are in
`label_7`, pass `--data.labels.segmentation label_7`.

python -m mtljax.main --experiment cityscapes
"""

from mtljax.config import Data, Experiment
from mtljax.tasks import Depth, Segmentation

experiment = Experiment(
    name="cityscapes",
    tasks=(
        Segmentation(name="segmentation", num_classes=7, ignore=-1, decoder="aspp"),
        Depth(name="depth", center=0.1, scale=1.0, floor=1e-4, decoder="aspp"),
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
