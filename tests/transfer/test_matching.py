"""Which variables start from which weights, under every fusion, and what is said when none fit."""

import jax
import numpy as np
import pytest
from support.models import SMALL_FUSIONS

from mtljax.models import FUSIONS, TRUNKS, build
from mtljax.models.conditioning import make_conditioning
from mtljax.tasks import Classification, Regression, Segmentation
from mtljax.transfer import StoredWeights, match
from mtljax.transfer.torch_names import CLASSIFIER, FAMILIES
from mtljax.utils.tree import flatten

TASKS = Classification(name="digit", num_classes=10), Regression(name="value")
STAGES = {
    "resnet18": {"depths": (1, 2), "width": 4},
    "resnet50": {"depths": (1, 1), "width": 4},
    "vit_ti": {"width": 8, "heads": 2, "depth": 4, "stages": 2, "patch": 4, "image_size": 16},
    "convnext_t": {"widths": (8, 8), "depths": (2, 1), "patch": 2},
    "efficientnet_lite0": {
        "plan": (((1, 3, 1, 1, 8),), ((1, 3, 2, 2, 8), (2, 3, 1, 2, 8))),
        "head_width": 16,
    },
    "mlp": {"widths": (8, 8)},
}
"""Arguments that make a trunk small, and yet have blocks of every kind."""


def model(trunk="mlp", fusion="none", tasks=TASKS, channels=3, **options):
    """A small model."""
    stages = TRUNKS[trunk](**{**STAGES[trunk], **options})
    statistics = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    return build(stages, FUSIONS[fusion], tasks, **statistics, **SMALL_FUSIONS.get(fusion, {}))


def shapes(module, channels=3, side=16):
    """{collection: shapes of variables}."""
    image = np.zeros((1, side, side, channels), np.float32)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    found = dict(jax.eval_shape(lambda: module.init(keys, image, train=False)))
    for seen in ("perturbations", "representation"):
        found.pop(seen, None)
    return found


def drawn(module, channels=3, low=0.0, high=1.0):
    """Weights of a model, all different."""
    draw = np.random.default_rng(0)
    leaves = flatten(shapes(module, channels))
    arrays = {
        path: draw.normal(size=leaf.shape).astype(leaf.dtype) for path, leaf in leaves.items()
    }
    return StoredWeights("weights", arrays, low, high)


def values(stored, module, channels=3, **options):
    return flatten(match(stored, module, shapes(module, channels), **options).variables)


def theirs(family, stages, wanted):
    """A state dict in the names of a family, as PyTorch would have it."""
    names, arrays, draw = family.names(stages), {}, np.random.default_rng(0)
    leaf_names = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    leaf_names |= {"mean": "running_mean", "var": "running_var"}
    for path, leaf in flatten(wanted).items():
        collection, *where, name = path.split("/")
        if collection == "constants":
            continue
        own = "/".join(where[1:]) if where[0] == "fusion" else CLASSIFIER
        direct = names.get(f"{own}/{name}") if where[0] == "fusion" else None
        value = draw.normal(size=leaf.shape)
        if name == "kernel":
            value = value.transpose({4: (3, 2, 0, 1), 2: (1, 0)}[value.ndim])
        arrays[direct or f"{names[own]}.{leaf_names[name]}"] = value
    return arrays


@pytest.mark.parametrize("trunk", [name for name in STAGES if name != "mlp"])
def test_every_family_fills_the_whole_network_and_leaves_nothing_over(trunk):
    module = model(trunk, tasks=TASKS[:1])
    stages, wanted = module.fusion.trunk, shapes(module)
    for family in FAMILIES[type(stages[0])]:
        state = theirs(family, stages, wanted)
        state["some.num_batches_tracked"] = np.zeros(())
        found = match(StoredWeights("x.pth", state), module, wanted, part="all", high=255.0)
        (line,) = found.report
        assert line.endswith(f"of the network initialized from x.pth ({family.library} names)")
        leaves = flatten(found.variables)
        assert {path: leaf.shape for path, leaf in leaves.items()} == {
            path: leaf.shape for path, leaf in flatten(wanted).items()
        }
        white = 255 / family.white
        np.testing.assert_allclose(leaves["constants/mean"], np.multiply(family.mean, white))
        np.testing.assert_allclose(leaves["constants/std"], np.multiply(family.std, white))


@pytest.mark.parametrize("fusion", [name for name in FUSIONS if name != "task_prompt"])
def test_every_copy_of_a_stage_starts_from_it(fusion):
    trunk = "resnet18" if fusion in ("mtan", "pad_net", "mti_net", "invpt") else "mlp"
    stored, module = drawn(model(trunk)), model(trunk, fusion)
    found = values(stored, module)
    covered = set()
    for path, value in found.items():
        collection, where, *rest = path.split("/")
        if collection == "constants":
            continue
        depth, stage = next(
            (depth, stage)
            for depth in (1, 2)
            if (stage := module.fusion.stage_of("/".join(rest[:depth]))) is not None
        )
        source = "/".join([collection, where, f"trunk_{stage}", *rest[depth:]])
        np.testing.assert_array_equal(value, stored.arrays[source])
        covered.add(source)
    assert covered == {path for path in stored.arrays if "/trunk_" in path}


def test_the_same_path_comes_before_the_trunk_without_copies():
    stored = drawn(model(fusion="independent"))
    found = values(stored, model(fusion="independent"))
    assert {path for path in found if "trunk" in path} == {p for p in stored.arrays if "trunk" in p}
    for path, value in found.items():
        np.testing.assert_array_equal(value, stored.arrays[path].reshape(value.shape))


def test_the_parts():
    module = model(fusion="attention")
    stored = drawn(module)
    sizes = {part: set(values(stored, module, part=part)) for part in ("trunk", "fusion", "all")}
    assert sizes["trunk"] < sizes["fusion"] < sizes["all"] == set(stored.arrays)
    assert {path.split("/")[2] for path in sizes["trunk"] if path.startswith("params")} == {
        "trunk_0",
        "trunk_1",
    }
    assert not any(path.startswith("params/task_") for path in sizes["fusion"])


def test_the_normalisation_comes_along_in_the_unit_of_the_new_images():
    stored = drawn(model(), low=0.0, high=16.0)
    found = values(stored, model(), low=-1.0, high=1.0)
    mean, std = (stored.arrays[f"constants/{name}"] for name in ("mean", "std"))
    np.testing.assert_allclose(found["constants/mean"], mean / 8 - 1, rtol=1e-6)
    np.testing.assert_allclose(found["constants/std"], std / 8, rtol=1e-6)
    unknown = values(stored._replace(low=None, high=None), model(), low=-1.0, high=1.0)
    np.testing.assert_array_equal(unknown["constants/mean"], mean)


def test_grey_images_and_position_embeddings():
    stored, module = drawn(model("vit_ti")), model("vit_ti", channels=1, image_size=24)
    found = values(stored, module, channels=1)
    assert found["params/fusion/trunk_0/patches/kernel"].shape == (4, 4, 1, 8)
    assert found["params/fusion/trunk_0/position"].shape == (1, 37, 8)
    mean = stored.arrays["constants/mean"].mean(keepdims=True)
    np.testing.assert_allclose(found["constants/mean"], mean, rtol=1e-6)


def test_the_report_tells_modules_that_are_fresh_and_left_over():
    other = model(
        "resnet18",
        tasks=(Regression(name="a"), Segmentation(name="b", num_classes=2, decoder="linear")),
    )
    first, fresh, left = match(drawn(model("resnet18")), other, shapes(other)).report
    assert first == "16 of 16 modules of the trunk initialized from weights (mtljax names)"
    assert fresh == "randomly initialized: task_a/Dense_0, task_b/output"
    assert left == "unused: task_digit/Dense_0, task_value/Dense_0"


def test_a_classifier_is_for_the_heads_of_its_shape():
    module = model("vit_ti")
    (family,) = FAMILIES[type(module.fusion.trunk[0])]
    state = theirs(family, module.fusion.trunk, shapes(model("vit_ti", tasks=TASKS[:1])))
    found = match(StoredWeights("vit.pth", state), module, shapes(module), part="all")
    assert set(found.variables["params"]) == {"fusion", "task_digit"}
    other = model("vit_ti", tasks=(Classification(name="digit", num_classes=7),))
    with pytest.raises(ValueError, match=r"head.weight has shape \[8, 10\].*\[8, 7\]; exclude it"):
        match(StoredWeights("vit.pth", state), other, shapes(other), part="all")


REFUSED = {
    "shape of the trunk": (
        lambda: (drawn(model(widths=(8, 9))), model()),
        r"params/fusion/trunk_1/Dense_0/kernel has shape \[8, 9\], the model has \[8, 8\]; choose",
    ),
    "shape of a head": (
        lambda: (drawn(model(tasks=(Classification(name="digit", num_classes=3),))), model()),
        r"params/task_digit/Dense_0/kernel has shape \[8, 3\].*--init-part trunk",
    ),
    "trunk for each task": (
        lambda: (drawn(model(tasks=TASKS[:1], fusion="independent")), model(tasks=TASKS[1:])),
        r"weights has no weights for .*: it has fusion/digit_trunk_0/Dense_0, .*; the model has "
        "fusion/trunk_0/Dense_0",
    ),
    "another trunk's names": (
        lambda: (StoredWeights("a.pth", {"layer1.0.conv1.weight": np.zeros(1)}), model("vit_ti")),
        "a.pth has weights of another trunk, with names of torchvision or timm .*resnet50",
    ),
    "no names that are known": (
        lambda: (StoredWeights("a.pth", {"x": np.zeros(1), "y": np.zeros(1)}), model("vit_ti")),
        r"a.pth has unknown names \(x, y\); supported are the names of mtljax, and of torchvision",
    ),
    "no names": (lambda: (StoredWeights("a.pth", {}), model()), r"unknown names \(none\)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_said_in_one_line(what):
    make, message = REFUSED[what]
    stored, module = make()
    with pytest.raises(ValueError, match=message) as error:
        match(stored, module, shapes(module), part="all")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_of_the_preference_start_without_effect(channels):
    tasks = (*TASKS, Regression(name="other"))
    plain = drawn(model("resnet18", tasks=tasks))
    statistics = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    trunk, cosmos = TRUNKS["resnet18"](**STAGES["resnet18"]), make_conditioning("cosmos")
    conditioned = build(trunk, FUSIONS["none"], tasks, **statistics, conditioning=cosmos)
    stem = "params/fusion/trunk_0/stem/kernel"
    found = values(plain, conditioned, channels)
    assert found[stem].shape[2] == channels + 3
    assert not found[stem][:, :, channels:].any()
    fitted = values(plain, model("resnet18", tasks=tasks, channels=channels), channels)
    for path, value in fitted.items():
        expected = found[path][:, :, :channels] if path == stem else found[path]
        np.testing.assert_array_equal(expected, value)
    # And back: what the network would do at preference 0.
    weights = drawn(conditioned, channels)
    back = values(weights, model("resnet18", tasks=tasks, channels=channels), channels)
    np.testing.assert_allclose(back[stem], weights.arrays[stem][:, :, :channels], rtol=1e-6)
    same = values(weights, conditioned, channels)
    np.testing.assert_array_equal(same[stem], weights.arrays[stem])
