"""Oxford-IIIT Pets: breed, species, segmentation mask and head bounding box.

7,349 photographs of 37 breeds of cats and dogs: 3,680 for training, the last tenth of which is the
validation split, and 3,669 for testing (Parkhi et al., 2012, "Cats and Dogs"). The mask has three
classes: animal, background, and the border between them. Images without a head box have no label
for that task.

python -m mtljax.main prepare --experiment oxford_pets    once, needs a network
python -m mtljax.main --experiment oxford_pets
"""

from mtljax.config import Data, Experiment
from mtljax.tasks import Classification, Detection, Segmentation

experiment = Experiment(
    name="oxford_pets",
    tasks=(
        Classification(name="breed", num_classes=37, label_smoothing=0.1),
        Classification(name="species", num_classes=2, class_names=("cat", "dog")),
        Segmentation(
            name="mask", num_classes=3, first=1, class_names=("animal", "background", "border")
        ),
        Detection(name="head", num_classes=1, most=1, class_names=("head",)),
    ),
    data=Data(
        source="tfds:oxford_iiit_pet,size=(128,128)",
        labels={"breed": "label", "mask": "segmentation_mask", "head": "head_bbox"},
        batch_size=64,
        augment=("flip", "crop:zooms=(1.0,1.1,1.25,1.5)", "jitter"),
    ),
    trunk="resnet18",
    balancer="uw",
    steps=4000,
    optimizer="adamw:weight_decay=1e-2",
    learning_rate=1e-3,
    schedule="cosine:warmup=200",
    eval_every=400,
)
