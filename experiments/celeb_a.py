"""CelebA: 40 binary face attributes, one task each.

202,599 faces with the published split (162,770 / 19,867 / 19,962; Liu et al., 2015,
arXiv:1411.7766), at 64x64 pixels with a ResNet-18, as in the multi-task literature since Sener &
Koltun, 2018 (arXiv:1810.04650), which reports the mean error over the 40 tasks.

python -m mtljax.main prepare --experiment celeb_a    once, needs a network (Google Drive)
python -m mtljax.main --experiment celeb_a
"""

from mtljax.config import Data, Experiment
from mtljax.tasks import Classification

ATTRIBUTES = (
    *("5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs"),
    *("Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair"),
    *("Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair"),
    *("Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache"),
    *("Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline"),
    *("Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings"),
    *("Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young"),
)

experiment = Experiment(
    name="celeb_a",
    tasks=tuple(Classification(name=name.lower(), num_classes=2) for name in ATTRIBUTES),
    data=Data(
        source="tfds:celeb_a,size=(64,64)",
        labels={name.lower(): f"attributes/{name}" for name in ATTRIBUTES},
        batch_size=256,
        augment=("flip",),
        keep_on_device="no",
        workers=4,
    ),
    trunk="resnet18",
    level="features",
    steps=10000,
    optimizer="adamw:weight_decay=1e-4",
    learning_rate=1e-3,
    schedule="cosine:warmup=500",
    eval_every=1000,
)
