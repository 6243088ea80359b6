"""Trunks give what PyTorch gives with the same weights."""

import jax
import numpy as np
import pytest

from mtljax.models import FUSIONS, TRUNKS, build
from mtljax.models.trunks.base import features_of
from mtljax.tasks import Classification
from mtljax.transfer import StoredWeights, match

torch = pytest.importorskip("torch")

from support.torch_models import MODELS, scrambled  # noqa: E402


def ours(name, theirs, image, *, mean=0.0, std=1.0, **options):
    """(features of every stage, logits) of the whole model, with their weights."""
    trunk, task = TRUNKS[name](**options), Classification(name="class", num_classes=10)
    model = build(trunk, FUSIONS["none"], (task,), mean=mean, std=std)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    wanted = {part: shapes[part] for part in ("params", "batch_stats") if part in shapes}
    state = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    initial = match(StoredWeights("theirs", state), model, wanted, part="all")
    assert len(initial.report) == 1  # nothing starts fresh, and nothing is left over
    constants = {"mean": np.float32(mean), "std": np.float32(std)}
    variables = {**initial.variables, "constants": constants}
    is_stage = lambda module, _: type(module) is type(trunk[0])
    run = jax.jit(lambda v, x: model.apply(v, x, train=False, capture_intermediates=is_stage))
    outputs, captured = run(variables, image)
    calls = captured["intermediates"]["fusion"]
    stages = [features_of(calls[f"trunk_{i}"]["__call__"][0]) for i in range(len(trunk))]
    return stages, outputs["class"]


def assert_equal(found, expected, tolerance):
    (stages, logits), (their_stages, their_logits) = found, expected
    pairs = [(a, b.movedim(1, -1)) for a, b in zip(stages, their_stages, strict=True)]
    for mine, their in [*pairs, (logits, their_logits)]:
        their = their.numpy()
        assert mine.shape == their.shape
        assert 0.05 < their.std() < 20  # or else the tolerance would say little
        np.testing.assert_allclose(mine, their, rtol=tolerance, atol=tolerance)


def check(name, size, *, pixels=False, wide=False, their_options=None, **options):
    """In 32 bits to 1e-4, or, where rounding adds up over too many layers, in 64 to 1e-9."""
    torch.manual_seed(0)
    theirs = MODELS[name](**(their_options or {}))
    theirs = scrambled(theirs, 1 + 2 * torch.randn(8, 3, *size))
    theirs = theirs.double() if wide else theirs
    draw = np.random.default_rng(0)
    image = 1 + 2 * draw.normal(size=(2, *size, 3)).astype(np.float32)
    image = image.astype(np.float64 if wide else np.float32)
    given, scale = image, {}
    if pixels:
        given = draw.integers(0, 256, image.shape, np.uint8)
        image, scale = (given.astype(image.dtype) - 127) / 128, {"mean": 127.0, "std": 128.0}
    with torch.no_grad():
        expected = theirs(torch.from_numpy(image).movedim(-1, 1))
    with jax.enable_x64(wide):
        found = ours(name, theirs, given, **scale, **options)
    assert_equal(found, expected, 1e-9 if wide else 1e-4)


SIZES = [(64, 64), (75, 53)]


@pytest.mark.parametrize("size", SIZES)
def test_resnet18_is_torchvisions(size):
    check("resnet18", size)


@pytest.mark.parametrize("size", SIZES)
def test_efficientnet_lite0_is_timms_with_tensorflows_padding(size):
    check("efficientnet_lite0", size, pixels=True)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "output_stride"), [(SIZES[0], 32), (SIZES[1], 16), (SIZES[1], 8)])
def test_resnet50_is_torchvisions_dilated_or_not(size, output_stride):
    dilated = {32: 0, 16: 1, 8: 2}[output_stride]
    their = {"dilated": dilated}
    check("resnet50", size, wide=True, their_options=their, output_stride=output_stride)


@pytest.mark.slow
@pytest.mark.parametrize("side", [64, 80])
def test_vit_s_is_timms(side):
    check("vit_s", (side, side), their_options={"image_size": side}, image_size=side)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_convnext_t_is_torchvisions(size):
    check("convnext_t", size)
