"""3D Shapes: the six generative factors of each image, one task each.

480,000 images of 64x64, one for each combination of floor, wall and object hue (10 each), scale
(8), shape (4) and orientation (15) (Burgess & Kim, 2018, https://github.com/google-deepmind/3d-shapes).
TFDS has one split: its last tenth is the test split, the tenth before it the validation split. Hues
and shape are classes; scale and orientation are numbers.

python -m mtljax.main prepare --experiment shapes3d    once, needs a network
python -m mtljax.main --experiment shapes3d
"""

from mtljax.config import Data, Experiment
from mtljax.tasks import Classification, Regression

CLASSES = {"floor_hue": 10, "wall_hue": 10, "object_hue": 10, "shape": 4}

experiment = Experiment(
    name="shapes3d",
    tasks=(
        *(Classification(name=name, num_classes=count) for name, count in CLASSES.items()),
        Regression(name="scale", center=1.0, scale=0.15),
        Regression(name="orientation", center=0.0, scale=18.0),
    ),
    data=Data(
        source="tfds:shapes3d",
        labels={
            **{name: f"label_{name}" for name in CLASSES},
            **{name: f"value_{name}" for name in ("scale", "orientation")},
        },
        batch_size=128,
        keep_on_device="no",
        workers=4,
    ),
    trunk="cnn",
    steps=10000,
    optimizer="adamw:weight_decay=1e-4",
    learning_rate=1e-3,
    schedule="cosine:warmup=500",
    eval_every=1000,
)
