"""Office-Home: classification into 65 object classes, one task per image domain (4 domains).

Multi-input multi-task learning: each image belongs to one domain and has one label (Venkateswara et
al., 2017, arXiv:1706.07522). The protocol is that of LibMTL (Lin & Zhang, 2022, arXiv:2203.14338):
60 % of each domain for training, 20 % for validation and 20 % for testing, here by a hash of the
file name; 224x224 pixels; domains in equal proportions; a ResNet-18, pretrained in the papers.

Reads `OfficeHomeDataset_10072016/{Art,Clipart,Product,Real World}/CLASS/*.jpg`, in the current
directory or in `$MTLJAX_DATA`: the unpacked archive of
https://www.hemanthdv.org/officeHomeDataset.html.

python -m mtljax.main --experiment office_home
"""

from mtljax.config import Data, Experiment
from mtljax.tasks import Classification

ROOT = "OfficeHomeDataset_10072016"
DOMAINS = {"art": "Art", "clipart": "Clipart", "product": "Product", "real_world": "Real World"}
SOURCES = {
    name: f"class_folders:'{ROOT}/{folder}',size=(224,224)" for name, folder in DOMAINS.items()
}

experiment = Experiment(
    name="office_home",
    tasks=tuple(Classification(name=name, num_classes=65) for name in DOMAINS),
    data=Data(
        source=f"join:{SOURCES},proportions={dict.fromkeys(DOMAINS, 1)}",
        labels={name: f"{name}/class" for name in DOMAINS},
        batch_size=64,
        augment=("flip", "crop:zooms=(1.0,1.1,1.2)"),
        keep_on_device="no",
        workers=4,
    ),
    trunk="resnet18",
    steps=20000,
    optimizer="adamw:weight_decay=1e-4",
    learning_rate=1e-4,
    schedule="cosine:warmup=500",
    eval_every=1000,
)
