"""Networks conditioned on the preference, against the network of each preference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.models import FITTING_TRUNK, IMAGE, SMALL_FUSIONS, init, quick_jit, small_trunk
from support.tiers import full_except

from mtljax.models import FUSIONS, build, partition
from mtljax.models.conditioning import CONDITIONINGS, PREFERENCE, make_conditioning
from mtljax.tasks import Classification, Regression
from mtljax.utils.tree import flatten, unflatten

TASKS = (Regression(name="a"), Classification(name="b", num_classes=3), Regression(name="c"))
RAY = np.array([0.2, 0.5, 0.3], np.float32)
SETTINGS = (
    "cosmos:code=false",
    "cosmos",
    "palora:rank=2",
    "hypernetwork:hidden=5",
    "hypernetwork:hidden=5,chunk=70",
)

every = pytest.mark.parametrize("condition", SETTINGS)


def make(condition, trunk="cnn", fusion="none", tasks=TASKS):
    arguments = SMALL_FUSIONS.get(fusion, {})
    conditioning = make_conditioning(condition)
    return build(small_trunk(trunk), FUSIONS[fusion], tasks, conditioning=conditioning, **arguments)


def image(trunk="cnn"):
    rng = np.random.default_rng(1)
    x = rng.normal(size=IMAGE).astype(np.float32)
    return x[:, :4, :4] if trunk == "rnn" else x  # it is unrolled over rows


def initial(model, x):
    """Variables drawn by NumPy, without normalization."""
    variables = init(model, x, train=False)
    if "batch_stats" in variables:  # variances
        variables["batch_stats"] = jax.tree.map(lambda x: 1 + jnp.abs(x), variables["batch_stats"])
    constants = {"mean": jnp.zeros(()), "std": jnp.ones(()), PREFERENCE: jnp.asarray(RAY)}
    return {**variables, "constants": constants}


def outputs(model, variables, x):
    return quick_jit(functools.partial(model.apply, train=False))(variables, x)


def at(variables, preference):
    constants = {**variables["constants"], PREFERENCE: jnp.asarray(preference, jnp.float32)}
    return {**variables, "constants": constants}


def without_condition(variables, params):
    """Variables of the unconditioned network with these parameters."""
    constants = {k: v for k, v in variables["constants"].items() if k != PREFERENCE}
    params = {k: v for k, v in params.items() if not k.startswith("conditioning/")}
    return {**variables, "params": unflatten(params), "constants": constants}


def assert_close(ours, theirs):
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=2e-5, atol=2e-5)


def upsampled(params):
    """Channels of the official code: PyTorch's transposed convolutions, in float64."""
    first = np.maximum(0, RAY @ np.asarray(params["up_0"]["kernel"], np.float64)).reshape(4, 4, 3)
    kernel = np.asarray(params["up_1"]["kernel"], np.float64)[::-1, ::-1]  # as PyTorch stores it
    full = np.zeros((12, 12, 3))
    for i, j in np.ndindex(4, 4):
        full[2 * i : 2 * i + 6, 2 * j : 2 * j + 6] += np.einsum("k,hwkf->hwf", first[i, j], kernel)
    second = np.maximum(0, full[1:-1, 1:-1])  # padding=1
    rows = np.floor(np.arange(16) * 10 / 16).astype(int)
    return second[rows][:, rows]


@pytest.mark.parametrize("condition", ["cosmos:code=false", "cosmos"])
def test_cosmos_appends_the_preference_to_the_image(condition):
    x = image()
    model, plain = make(condition), make("none")
    variables = initial(model, x)
    channels = np.broadcast_to(RAY, (16, 16, 3))
    if condition == "cosmos":
        channels = upsampled(variables["params"]["conditioning"])
    appended = np.concatenate([x, np.broadcast_to(channels, (*x.shape[:3], 3))], -1)
    params = flatten(variables["params"])
    expected = outputs(plain, without_condition(variables, params), appended)
    assert_close(outputs(model, variables, x), expected)


@pytest.mark.parametrize("trunk", full_except(["cnn"], ["cnn", "mlp", "vit_ti", "resnet18"]))
def test_palora_adds_the_weighted_products_to_the_kernels(trunk):
    x = image()
    model, plain = make("palora:rank=2,scale=0.5", trunk), make("none", trunk)
    variables = initial(model, x)
    params, changed = flatten(variables["params"]), 0
    for path, kernel in list(params.items()):
        if path.startswith("fusion/") and path.endswith("/kernel"):
            of = "conditioning/of_" + path[len("fusion/") : -len("/kernel")].replace("/", ".")
            a, b = (np.asarray(params[f"{of}.{name}"], np.float64) for name in "ab")
            delta = (0.5 * sum(RAY[t] * a[t] @ b[t] for t in range(3))).reshape(kernel.shape)
            params[path] = (np.asarray(kernel, np.float64) + delta.reshape(kernel.shape)).astype(
                "f"
            )
            changed += 1
    assert changed
    expected = outputs(plain, without_condition(variables, params), x)
    assert_close(outputs(model, variables, x), expected)


@pytest.mark.parametrize("chunk", [None, 70])
def test_the_hypernetwork_generates_all_shared_parameters(chunk):
    x = image()
    condition = "hypernetwork:hidden=5" + ("" if chunk is None else f",chunk={chunk}")
    model, plain = make(condition), make("none")
    variables = initial(model, x)
    params = flatten(variables["params"])
    of = {
        k.removeprefix("conditioning/"): np.asarray(v, np.float64)
        for k, v in params.items()
        if k.startswith("conditioning/")
    }
    layer = lambda i, v: v @ of[f"layer_{i}/kernel"] + of[f"layer_{i}/bias"]
    features = lambda v: layer(2, np.maximum(0, layer(1, np.maximum(0, layer(0, v)))))
    shared = [path for path in flatten(variables["params"]) if path.startswith("fusion/")]
    if chunk is None:
        values = {
            p: features(RAY) @ of["of_" + p.removeprefix("fusion/").replace("/", ".")] / 5
            for p in shared
        }
    else:
        rows = [features(np.append(RAY, row)) @ of["of_chunk"] / 5 for row in of["chunks"]]
        ends = np.cumsum([params[p].size for p in shared])
        assert len(rows) == -(-ends[-1] // chunk)
        values = dict(zip(shared, np.split(np.concatenate(rows), ends), strict=False))
    for path in shared:
        change = values[path].reshape(params[path].shape)
        params[path] = (np.asarray(params[path], np.float64) + change).astype(np.float32)
    expected = outputs(plain, without_condition(variables, params), x)
    assert_close(outputs(model, variables, x), expected)


@pytest.mark.parametrize("condition", [s for s in SETTINGS if not s.startswith("cosmos")])
def test_training_starts_from_the_unconditioned_network(condition):
    x = image()
    model, plain = make(condition), make("none")
    variables = dict(quick_jit(functools.partial(model.init, train=False))(jax.random.key(0), x))
    expected = outputs(plain, without_condition(variables, flatten(variables["params"])), x)
    for ray in (RAY, np.eye(3)[0]):
        found = outputs(model, at(variables, ray), x)
        for name, value in expected.items():
            assert np.array_equal(found[name], value)


@pytest.mark.parametrize(
    ("fusion", "trunk"),
    full_except(
        [("none", "mlp")],
        [("none", name) for name in ("mlp", "cnn", "rnn", "resnet18", "segnet", "vit_ti")]
        + [("none", name) for name in ("convnext_t", "efficientnet_lite0")]
        + [(name, FITTING_TRUNK.get(name, "cnn")) for name in FUSIONS if name != "none"]
        + [("mtan", "cnn")],
    ),
)
@every
def test_every_trunk_and_fusion_depends_on_the_preference(condition, fusion, trunk):
    x = image(trunk)
    model = make(condition, trunk, fusion)
    variables = initial(model, x)
    rays = jnp.asarray(np.concatenate([RAY[None], np.eye(3)]), jnp.float32)
    run = lambda ray: model.apply(at(variables, ray), x, train=False)
    for name, found in quick_jit(jax.vmap(run))(rays).items():
        assert np.isfinite(found).all()
        assert np.ptp(found, 0).max() > 0, name


@every
def test_heads_stay_task_specific_and_the_condition_is_shared(condition):
    variables = initial(make(condition), image())
    shared, specific = partition(variables["params"])
    assert {path.split("/")[0] for path in specific} == {"task_a", "task_b", "task_c"}
    assert {path.split("/")[0] for path in shared} <= {"fusion", "conditioning"}


@pytest.mark.parametrize("condition", CONDITIONINGS)
@pytest.mark.parametrize("concentration", [0.2, 3.0])
def test_preferences_have_the_moments_of_the_dirichlet_distribution(condition, concentration):
    draw = make_conditioning(f"{condition}:concentration={concentration}").draw
    rays = np.asarray(jax.vmap(lambda key: draw(key, 3))(jax.random.split(jax.random.key(0), 4000)))
    assert (rays >= 0).all()
    np.testing.assert_allclose(rays.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(rays.mean(0), 1 / 3, atol=0.03)  # 4 standard errors
    variance = (1 / 3) * (2 / 3) / (3 * concentration + 1)
    np.testing.assert_allclose(rays.var(0), variance, rtol=0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosmo", "unknown condition 'cosmo'; did you mean 'cosmos'"),
        ("palora:rank=0", "rank must be >= 1, not 0"),
        ("palora:parent=1", "no argument 'parent'"),
        ("hypernetwork:chunk=0", "chunk must be >= 1, not 0"),
        ("cosmos:concentration=0", "concentration must be > 0 and finite, not 0"),
    ],
)
def test_a_wrong_condition_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_conditioning(text)
    assert "\n" not in str(caught.value)


def test_a_single_task_is_refused():
    with pytest.raises(ValueError, match="needs at least two tasks, not only a"):
        make("palora", tasks=TASKS[:1])


def test_a_hypernetwork_that_is_too_large_is_refused_in_one_line():
    model = make("hypernetwork:hidden=3000000")
    with pytest.raises(ValueError, match="add chunk=10000") as caught:
        jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image())
    assert "\n" not in str(caught.value)
