"""NYUv2: semantic segmentation (13 classes), depth and surface normals of indoor scenes.

The multi-task benchmark of MTAN (Liu et al., 2019, arXiv:1803.10704): 795 training and 654 test
images of 288x384 pixels, zooms of 1, 1.2 or 1.5 and horizontal flips, L1 loss on depth, cosine loss
on normals; a dilated ResNet-50 with one ASPP head per task, batch size 8, Adam at 1e-4, halved
after 100 of 200 epochs, as in LibMTL (arXiv:2203.14338). MTAN and LibMTL report the best or last
epochs on the test images; here the checkpoint is selected on a random tenth of the training images.

Reads `{train,val}/{image,label,depth,normal}/N.npy` from the folder `nyuv2`, in the current
directory or in `$MTLJAX_DATA`; https://github.com/lorenmt/mtan links to the files.

python -m mtljax.main --experiment nyuv2
"""

from mtljax.config import Data, Experiment
from mtljax.tasks import Depth, Normals, Segmentation

experiment = Experiment(
    name="nyuv2",
    tasks=(
        Segmentation(name="segmentation", num_classes=13, ignore=-1, decoder="aspp"),
        Depth(name="depth", center=2.7, scale=1.0, decoder="aspp"),
        Normals(name="normals", decoder="aspp"),
    ),
    data=Data(
        source="npy_folders:nyuv2",
        labels={"segmentation": "label", "normals": "normal"},
        batch_size=8,
        augment=("crop:zooms=(1.0,1.2,1.5)", "flip"),
        keep_on_device="no",
        workers=4,
    ),
    trunk="resnet50:output_stride=8",
    steps=18000,
    optimizer="adam",
    learning_rate=1e-4,
    schedule="step:every=9000,factor=0.5",
    eval_every=900,
)
