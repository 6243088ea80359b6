"""Your own data: a folder of images and a table of labels. Copy this file and change it.

It looks for the folder `my_data`, here or in `$MTLJAX_DATA`, as docs/my_data.md makes one.

python -m mtljax.main data --experiment my_data    what is in it, and a picture
python -m mtljax.main --experiment my_data
"""

from mtljax.config import Data, Experiment
from mtljax.tasks import Classification, Regression, Segmentation

experiment = Experiment(
    name="my_data",
    tasks=(
        # One column of labels.csv each, called as the task; empty cells are missing labels.
        Classification(name="shape", num_classes=3, class_names=("circle", "square", "triangle")),
        Regression(name="size", center=10.0, scale=3.0),
        # Cells with file names: here PNG masks, 0 background and 1 the thing.
        Segmentation(name="mask", num_classes=2, class_names=("background", "thing")),
    ),
    data=Data(
        source="folder:my_data,size=(32,32)",
        # labels={"shape": "column"}: where the label is, if it is called otherwise than the task.
        batch_size=32,
        augment=("flip", "jitter"),
    ),
    trunk="cnn",
    steps=300,
    learning_rate=3e-3,
    schedule="cosine:warmup=40",
    eval_every=100,
)
