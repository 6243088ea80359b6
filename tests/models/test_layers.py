"""The fast forms of layers are the same functions as Flax's, with the same parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.models import quick_jit

from mtljax.models.cpu_ops import max_pool, overlapping_max_pool
from mtljax.models.layers import DropPath, Norm, conv, dense, resize


def draw(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def with_gradients(function, *args):
    """(value, gradients) under a loss that weighs every output differently."""

    def loss(*args):
        out = function(*args)
        return (out * jnp.sin(jnp.arange(out.size)).reshape(out.shape)).sum(), out

    (_, out), gradients = jax.value_and_grad(loss, tuple(range(len(args))), has_aux=True)(*args)
    return out, gradients


@pytest.mark.parametrize(
    ("features", "size", "options"),
    [
        (5, 1, {}),
        (5, 1, {"strides": 2}),
        (6, 3, {"feature_group_count": 6}),
        (6, 3, {"feature_group_count": 6, "strides": 2}),
        (6, 3, {"feature_group_count": 6, "padding": 2, "kernel_dilation": 2}),
        (6, 4, {"feature_group_count": 6, "padding": "VALID", "strides": 3}),
        (6, 5, {"feature_group_count": 6, "use_bias": False, "strides": 2}),
        (12, 3, {"feature_group_count": 6}),
        (5, 3, {"padding": 1}),
    ],
)
def test_fast_convolution_equals_flax_with_its_gradients(features, size, options):
    fast, flax = conv(features, size, **options), nn.Conv(features, (size, size), **options)
    x = draw((2, 7, 9, 6))
    shapes = lambda layer: jax.eval_shape(lambda: layer.init(jax.random.key(0), x))
    assert jax.tree.map(jnp.shape, shapes(fast)) == jax.tree.map(jnp.shape, shapes(flax))
    variables = jax.tree.map(lambda leaf: draw(leaf.shape, 1), shapes(fast))
    both = quick_jit(lambda v, x: [with_gradients(layer.apply, v, x) for layer in (fast, flax)])
    found, expected = both(variables, x)
    # Sums of up to 1000 products in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), found, expected)


@pytest.mark.parametrize("groups", [1, 4, 256])
def test_a_convolution_doubles_the_variance_in_however_many_groups(groups):
    """So the ReLU behind it, which halves the square, leaves it as it was."""
    x = draw((2, 12, 12, 256))
    out, _ = conv(256, 3, feature_group_count=groups, padding="VALID").init_with_output(
        jax.random.key(0), x
    )
    assert float(out.var()) == pytest.approx(2.0, rel=0.1)  # of 256 random kernels


@pytest.mark.full
def test_a_depthwise_convolution_has_curvature_and_keeps_no_map_per_kernel_cell():
    """Differentiated forwards over backwards, as telemetry does, and all rows at once."""
    x, kernel = draw((4, 16, 16, 8)), draw((5, 5, 1, 8), 1)

    def loss(layer):
        return lambda kernel, x: (layer.apply({"params": {"kernel": kernel}}, x) ** 3).sum()

    def curvature(layer):
        ahead = lambda k: jax.jvp(lambda k: jax.grad(loss(layer))(k, x), (k,), (k,))[1]
        return jax.vmap(ahead)(jnp.stack([kernel, 2 * kernel]))

    options = {"feature_group_count": 8, "use_bias": False}
    found, expected = [
        curvature(make) for make in (conv(8, 5, **options), nn.Conv(8, (5, 5), **options))
    ]
    scale = jnp.abs(expected).max()
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)
    gradient = jax.jit(jax.grad(loss(conv(8, 5, **options)))).lower(kernel, x).compile()
    assert gradient.memory_analysis().temp_size_in_bytes < 8 * x.nbytes  # 25 maps: one a cell


def test_a_depthwise_convolution_leaves_a_batch_on_its_devices():
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.NamedSharding(mesh, jax.P("batch"))
    layer = conv(8, 3, feature_group_count=8, use_bias=False)
    x, kernel = jax.device_put(draw((16, 8, 8, 8)), spread), draw((3, 3, 1, 8), 1)

    def loss(kernel, x):
        return (layer.apply({"params": {"kernel": kernel}}, x) ** 2).sum()

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(kernel, x).compile()
    assert "all-gather" not in compiled.as_text()
    assert compiled.output_shardings[1].is_equivalent_to(spread, 4)
    forward = jax.jit(layer.apply).lower({"params": {"kernel": kernel}}, x)
    assert "while" not in forward.as_text()  # nor is it a loop where nothing is differentiated


@pytest.mark.full
def test_a_depthwise_kernel_in_bfloat16_has_a_gradient_as_good_as_its_terms():
    layer = conv(8, 3, feature_group_count=8, use_bias=False)
    x, kernel = 1 + draw((32, 16, 16, 8)), draw((3, 3, 1, 8), 1)

    def gradient(dtype):
        total = lambda k: layer.apply({"params": {"kernel": k}}, x.astype(dtype)).sum()
        return jax.grad(total)(kernel.astype(dtype)).astype(jnp.float32)

    found, expected = gradient(jnp.bfloat16), gradient(jnp.float32)
    np.testing.assert_allclose(found, expected, rtol=2**-7)  # a bfloat16 has eight bits


def test_flat_dense_equals_flax_with_its_gradients():
    x, kernel, bias = draw((2, 3, 4, 6)), draw((6, 5), 1), draw((5,), 2)
    variables = {"params": {"kernel": kernel, "bias": bias}}
    both = quick_jit(
        lambda v, x: [with_gradients(layer.apply, v, x) for layer in (dense(5), nn.Dense(5))]
    )
    found, expected = both(variables, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (1, 7, 9, 2)])
def test_overlapping_max_pool_equals_flax_with_its_gradient(shape):
    flax = lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    x = draw(shape)
    found, expected = quick_jit(
        lambda x: [with_gradients(pool, x) for pool in (overlapping_max_pool, flax)]
    )(x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)


def test_max_pool_by_reshape_equals_flax_where_windows_do_not_overlap():
    x = draw((2, 6, 9, 3))
    np.testing.assert_array_equal(max_pool(x, 3), nn.max_pool(x, (3, 3), (3, 3)))
    np.testing.assert_array_equal(max_pool(x), nn.max_pool(x, (2, 2), (2, 2), "SAME"))


@pytest.mark.parametrize("pool", [max_pool, overlapping_max_pool])
def test_a_pool_passes_on_nan_and_gives_each_gradient_to_one_cell(pool):
    x = draw((1, 8, 8, 2))
    for cell in ((0, 0), (2, 3), (7, 7)):
        assert jnp.isnan(pool(x.at[0, *cell, 1].set(jnp.nan))).any()
    total = jax.grad(lambda x: pool(x).sum())(jnp.zeros((1, 8, 8, 2))).sum()
    assert total == pool(x).size


@pytest.mark.parametrize("pool", [max_pool, overlapping_max_pool])
def test_a_pool_after_a_norm_has_a_finite_gradient_however_it_is_compiled(pool):
    norm, x = nn.GroupNorm(1), draw((2, 16, 16, 4))
    variables = {"params": {"scale": draw((4,), 1), "bias": draw((4,), 2)}}
    loss = lambda x: (pool(nn.relu(norm.apply(variables, x))) * draw((2, 8, 8, 4), 3)).sum()
    quick, full = quick_jit(jax.grad(loss))(x), jax.jit(jax.grad(loss))(x)
    np.testing.assert_allclose(quick, full, atol=1e-4)


def test_resize_keeps_a_constant_map_and_averages_where_it_halves():
    np.testing.assert_allclose(resize(jnp.ones((1, 3, 5, 2)), (7, 4)), 1.0, atol=1e-6)
    x = draw((1, 4, 4, 1))
    np.testing.assert_allclose(resize(x, (2, 2)).mean(), x.mean(), atol=0.2)
    assert resize(x, (4, 4)) is x


@pytest.mark.parametrize("kind", ["batch", "group", "layer"])
def test_a_norm_leaves_features_of_mean_zero_and_variance_one(kind):
    x = 5 + 3 * draw((64, 16))
    y, _ = Norm(kind).init_with_output(jax.random.key(0), x, True)
    axis = 0 if kind == "batch" else 1
    np.testing.assert_allclose(y.reshape(64, 16).mean(axis), 0, atol=1e-5)
    if kind != "group":
        np.testing.assert_allclose(y.var(axis), 1, atol=1e-3)


def test_norm_none_changes_nothing_and_an_unknown_norm_is_refused():
    x = draw((2, 4))
    assert Norm("none").apply({}, x, True) is x
    with pytest.raises(ValueError, match="norm must be one of"):
        Norm("instance").init(jax.random.key(0), x, True)


def test_batch_norm_over_a_named_axis_is_that_of_the_whole_batch():
    x = draw((4, 3, 2))
    norm = Norm("batch", axis_name="devices")
    variables = Norm("batch").init(jax.random.key(0), x[0], True)
    apply = lambda norm, x: norm.apply(variables, x, True, mutable=["batch_stats"])[0]
    spread = jax.vmap(lambda part: apply(norm, part), axis_name="devices")(x)
    whole = apply(Norm("batch"), x.reshape(12, 2))
    np.testing.assert_allclose(spread.reshape(12, 2), whole, atol=1e-5)


def test_drop_path_drops_whole_examples_and_keeps_the_mean():
    x = jnp.ones((400, 3))
    out = DropPath(0.25).apply({}, x, True, rngs={"dropout": jax.random.key(0)})
    assert {float(value) for value in jnp.unique(out)} == {0.0, float(jnp.float32(1 / 0.75))}
    assert (out == out[:, :1]).all()
    # 400 draws: 4 standard deviations of the mean.
    assert abs(out.mean() - 1) < 4 * (0.25 / 0.75 / 400) ** 0.5
    assert (DropPath(0.25).apply({}, x, False) == x).all()
