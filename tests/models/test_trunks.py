"""What holds for every trunk, and the published sizes."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.models import SMALL_TRUNKS, init, quick_jit, shapes, small_image, small_trunk
from support.tiers import full_except

import mtljax.models
from mtljax.models import FUSIONS, TRUNKS
from mtljax.models.multitask import build
from mtljax.models.trunks.base import features_of
from mtljax.models.trunks.segnet import pool, unpool
from mtljax.tasks import Classification, Depth

PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "efficientnet_lite0": 4_652_008,
    "vit_ti": 5_717_416,
    "vit_s": 22_050_664,
    "vit_b": 86_567_656,
    "convnext_t": 28_589_128,
}

SOON_COMPILED = ("mlp", "cnn", "rnn", "segnet", "resnet18", "vit_ti")
"""Trunks that the README's tier differentiates; of the others it takes shapes and sizes."""


class Classifier(nn.Module):
    """A trunk and the linear layer of 1000 classes that ImageNet's counts include."""

    trunk: tuple

    @nn.compact
    def __call__(self, x, train):
        for stage in self.trunk:
            x = stage(x, train)
        return nn.Dense(1000)(features_of(x).mean((1, 2)))


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def all_stages(trunk):
    return FUSIONS["none"](trunk=trunk, tasks=("t",), taps=len(trunk))


def stage_shapes(name, image=(2, 64, 64, 3), **options):
    outputs, _ = shapes(
        all_stages(TRUNKS[name](**options)), jax.ShapeDtypeStruct(image, "float32"), train=True
    )
    return [x.shape[1:] for x in outputs["t"]]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_trunk_with_a_classifier_has_the_published_number_of_parameters(name):
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
    _, variables = shapes(Classifier(TRUNKS[name]()), image, train=False)
    assert size(variables["params"]) == PUBLISHED[name]


@pytest.mark.parametrize("name", TRUNKS)
def test_a_trunk_is_a_function_of_the_package_with_a_signature_and_a_summary(name):
    make = getattr(mtljax.models, name)
    assert make is TRUNKS[name]
    assert inspect.isfunction(make)
    assert name in mtljax.models.__all__
    parameters = inspect.signature(make).parameters.values()
    assert all(parameter.default is not parameter.empty for parameter in parameters)
    assert inspect.getdoc(make).splitlines()[0].endswith((".", "`."))
    assert make(**SMALL_TRUNKS[name]).spec == (name, SMALL_TRUNKS[name])


def test_every_fusion_is_a_class_of_the_package():
    classes = {fusion.__name__ for fusion in FUSIONS.values()}
    assert classes <= set(mtljax.models.__all__)
    assert all(getattr(mtljax.models, name).__name__ == name for name in classes)


def test_segnet_goes_down_like_vgg16_with_batch_norm_and_up_as_in_mtan():
    _, variables = shapes(all_stages(TRUNKS["segnet"]()), small_image_of(64), train=True)
    sizes = [size(variables["params"][f"trunk_{i}"]) for i in range(10)]
    assert sum(sizes[:5]) == 14_723_136
    unit = lambda i, o: 9 * i * o + o + 2 * o
    up = [(512, 512, 512, 512), (512, 256, 256, 256), (256, 128, 128, 128), (128, 64, 64)]
    expected = [sum(map(unit, w[:-1], w[1:])) for w in [*up, (64, 64, 64)]]
    assert sizes[5:] == expected


def small_image_of(side):
    return jax.ShapeDtypeStruct((2, side, side, 3), "float32")


@pytest.mark.parametrize("name", full_except(SOON_COMPILED, TRUNKS))
def test_every_parameter_of_a_trunk_gets_a_gradient(name):
    module, image = all_stages(small_trunk(name)), small_image()
    image = image[:, :3] if name == "rnn" else image  # it is unrolled over rows
    variables = init(module, image, train=True)
    params = variables.pop("params")

    def loss(params):
        values = {"params": params, **variables}
        keys = {"dropout": jax.random.key(0)}
        outputs, _ = module.apply(values, image, train=True, rngs=keys, mutable=list(variables))
        return sum((x * jnp.arange(x.size).reshape(x.shape)).sum() for x in outputs["t"])

    for path, leaf in jax.tree.leaves_with_path(quick_jit(jax.grad(loss))(params)):
        assert jnp.isfinite(leaf).all(), path
        assert (leaf != 0).any(), path


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("cnn", (1, 2, 4)),
        ("resnet50", (4, 8, 16, 32)),
        ("efficientnet_lite0", (2, 4, 8, 16, 32)),
        ("convnext_t", (4, 8, 16, 32)),
        ("vit_ti", (16,) * 4),
        ("segnet", (2, 4, 8, 16, 32, 16, 8, 4, 2, 1)),
    ],
)
def test_stages_have_the_strides_they_say(name, strides):
    assert [64 // shape[0] for shape in stage_shapes(name)] == list(strides)


def test_the_stride_of_a_cnn_divides_every_map():
    assert stage_shapes("cnn", (1, 32, 32, 3), stride=2) == [(16, 16, 16), (8, 8, 32), (4, 4, 64)]
    with pytest.raises(ValueError, match="stride must be >= 1, not 0"):
        TRUNKS["cnn"](stride=0)


@pytest.mark.full
@pytest.mark.parametrize("output_stride", [32, 16, 8])
def test_dilation_keeps_the_output_stride(output_stride):
    expected = [min(stride, output_stride) for stride in (4, 8, 16, 32)]
    for name in ("resnet18", "resnet50"):
        found = stage_shapes(name, output_stride=output_stride, width=8)
        assert [64 // shape[0] for shape in found] == expected


def test_dilation_keeps_the_parameters():
    count = lambda stride: jax.tree.map(
        jnp.shape,
        shapes(
            all_stages(TRUNKS["resnet18"](output_stride=stride)), small_image_of(32), train=True
        )[1]["params"],
    )
    assert count(8) == count(32)


def test_the_small_stem_gives_maps_four_times_as_large():
    assert stage_shapes("resnet18", (1, 32, 32, 3), stem="small") == [
        (32, 32, 64),
        (16, 16, 128),
        (8, 8, 256),
        (4, 4, 512),
    ]


@pytest.mark.parametrize("norm", ["batch", "group", "layer", "none"])
@pytest.mark.parametrize("name", ["resnet18", "segnet", "efficientnet_lite0", "convnext_t"])
def test_every_convolutional_trunk_takes_every_norm(name, norm):
    trunk = TRUNKS[name](**{**SMALL_TRUNKS[name], "norm": norm})
    _, variables = shapes(all_stages(trunk), small_image(), train=True)
    assert ("batch_stats" in variables) == (norm == "batch")


def test_a_vit_works_on_images_of_another_size_and_shape():
    module = all_stages(TRUNKS["vit_ti"](depth=2, stages=2, width=8, heads=2))
    params = {"params": shapes(module, small_image_of(224), train=False)[1]["params"]}
    run = lambda v, x: module.apply(v, x, train=False)
    other = jax.eval_shape(run, params, jax.ShapeDtypeStruct((1, 96, 64, 3), "float32"))
    assert [x.shape for x in other["t"]] == [(1, 6, 4, 8)] * 2


def test_position_embeddings_are_used_as_they_are_at_their_own_size():
    module = all_stages(TRUNKS["vit_ti"](**{**SMALL_TRUNKS["vit_ti"], "image_size": 32}))
    variables = init(module, small_image(), train=False)
    position = variables["params"]["trunk_0"]["position"]
    assert position.shape == (1, 1 + 8 * 8, 8)
    constant = jnp.broadcast_to(position[:, :1], position.shape)
    variables["params"]["trunk_0"]["position"] = constant
    smaller = all_stages(TRUNKS["vit_ti"](**SMALL_TRUNKS["vit_ti"]))
    values = jax.tree.map(lambda x: x, variables)
    values["params"]["trunk_0"]["position"] = constant[:, : 1 + 4 * 4]
    run = quick_jit(lambda module, v: module.apply(v, small_image(), train=False), static_argnums=0)
    found, expected = run(module, variables)["t"], run(smaller, values)["t"]
    np.testing.assert_allclose(found[-1], expected[-1], atol=1e-5)


def test_a_patch_that_does_not_divide_the_image_is_refused():
    with pytest.raises(ValueError, match="patch=16 does not divide"):
        stage_shapes("vit_ti", (1, 30, 32, 3))


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("resnet18", {"output_stride": 4}, "32, 16 or 8"),
        ("resnet18", {"stem": "tiny"}, "imagenet, small"),
        ("vit_s", {"stages": 5}, "does not divide depth"),
        ("vit_s", {"heads": 5}, "does not divide width"),
    ],
)
def test_an_impossible_argument_is_refused(name, options, match):
    with pytest.raises(ValueError, match=match):
        TRUNKS[name](**options)


def test_segnet_puts_every_maximum_back_in_its_place():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    largest, mark = pool(jnp.asarray(x))
    restored = np.asarray(unpool(largest, mark))
    windows = x.reshape(2, 2, 2, 3, 2, 3).max((2, 4), keepdims=True)
    expected = np.where(x.reshape(2, 2, 2, 3, 2, 3) == windows, windows, 0).reshape(x.shape)
    np.testing.assert_array_equal(restored, expected)


def test_segnet_marks_one_maximum_where_several_are_equal():
    _, mark = pool(jnp.zeros((1, 4, 4, 2)))
    assert mark.sum() == 8


def test_segnet_refuses_an_image_it_cannot_halve():
    with pytest.raises(ValueError, match="multiples of 32"):
        stage_shapes("segnet", (1, 24, 24, 3))


def test_a_trunk_with_too_few_stages_names_the_task_and_the_fix():
    tasks = (Classification(name="kind", num_classes=2), Depth(name="far"))
    with pytest.raises(ValueError, match=r"task 'far' reads 3 stages .* cnn:widths=\(32,32,32\)"):
        build(TRUNKS["cnn"](widths=(8,)), FUSIONS["none"], tasks)
