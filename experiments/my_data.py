"""Template for custom data: a folder of images and a table of labels. Copy and edit this file.

Reads the folder `my_data`, in the current directory or in `$MTLJAX_DATA`; docs/my_data.md shows how
to create one.

python -m mtljax.main data --experiment my_data    summary of the data, with a figure
python -m mtljax.main --experiment my_data
"""

from mtljax.config import Data, Experiment
from mtljax.tasks import Classification, Regression, Segmentation

experiment = Experiment(
    name="my_data",
    tasks=(
        # One column of labels.csv per task, with the name of the task; empty cells: no label.
        Classification(name="shape", num_classes=3, class_names=("circle", "square", "triangle")),
        Regression(name="size", center=10.0, scale=3.0, mirror="keep"),
        # Cells with file names: here PNG masks with 0 for background and 1 for the object.
        Segmentation(name="mask", num_classes=2, class_names=("background", "thing")),
    ),
    data=Data(
        source="folder:my_data,size=(32,32)",
        # labels={"shape": "column"}: the column of a label, if its name differs from the task's.
        batch_size=32,
        augment=("flip", "jitter"),
    ),
    trunk="cnn",
    steps=300,
    learning_rate=3e-3,
    schedule="cosine:warmup=40",
    eval_every=100,
)
