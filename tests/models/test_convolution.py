"""Convolution and its derivatives, against `jax.lax.conv_general_dilated`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import compiler_options
from mtljax.models import cpu_ops
from mtljax.models.convolution import conv

CASES = {
    "same": ((9, 8), (3, 3), {"padding": ((1, 1), (1, 1))}),
    "valid": ((9, 8), (3, 2), {}),
    "strided": ((9, 8), (3, 3), {"strides": (2, 3), "padding": ((1, 1), (1, 1))}),
    "uneven": ((12, 9), (2, 5), {"strides": (2, 1), "padding": ((0, 1), (2, 4))}),
    "dilated": ((12, 11), (3, 3), {"kernel_dilation": (2, 3), "padding": ((2, 2), (3, 3))}),
    "strided, dilated": ((12, 12), (3, 2), {"strides": (2, 2), "kernel_dilation": (2, 1)}),
    "patches": ((12, 8), (4, 4), {"strides": (4, 4)}),
    "point": ((6, 5), (1, 1), {"strides": (2, 2)}),
    "tiny map": ((2, 2), (3, 3), {"padding": ((1, 1), (1, 1))}),
    "one position": ((1, 1), (3, 3), {"padding": ((1, 1), (1, 1))}),
    "tiny map, strided": ((2, 3), (3, 3), {"strides": (2, 2), "padding": ((1, 1), (1, 1))}),
    "row": ((1, 7), (1, 3), {"padding": ((0, 0), (1, 1))}),
}


@pytest.fixture(autouse=True)
def single_device(monkeypatch):
    """The form for a single CPU; the suite runs on eight virtual ones."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def reference(x, kernel, strides=(1, 1), padding=((0, 0), (0, 0)), kernel_dilation=(1, 1)):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=kernel_dilation,
        dimension_numbers=dimensions,
        precision="highest",
    )


def arrays(case, dtype=np.float32):
    size, window, options = CASES[case]
    x, kernel = draw((2, *size, 3)).astype(dtype), draw((*window, 3, 4), seed=1).astype(dtype)
    return x, kernel, options


def assert_same(of, options, arguments):
    """Compares a function of a convolution between the two, to 1e-6 of the largest element."""
    of_conv, of_reference = (
        jax.jit(functools.partial(of, functools.partial(f, **options)))(*arguments)
        for f in (conv, reference)
    )
    assert jax.tree.structure(of_conv) == jax.tree.structure(of_reference)
    for a, b in zip(jax.tree.leaves(of_conv), jax.tree.leaves(of_reference), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(1.0, float(abs(b).max())))


@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives_of_both_orders_are_those_of_xla(case):
    x, kernel, options = arrays(case)

    def of(f, x, kernel):
        out, pull = jax.vjp(f, x, kernel)
        tangents = jax.jvp(f, (x, kernel), (2 * x + 1, kernel**2))[1]
        squares = lambda x, kernel: (jnp.sin(f(x, kernel)) ** 2).mean()
        slope = lambda x, kernel: sum((g**2).mean() for g in jax.grad(squares, (0, 1))(x, kernel))
        return out, pull(jnp.cos(out)), tangents, jax.grad(slope, (0, 1))(x, kernel)

    assert_same(of, options, (x, kernel))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (3, 1)])
@pytest.mark.parametrize("case", ["same", "strided", "tiny map"])
def test_vmap_equals_that_of_xla(case, axes):
    x, kernel, options = arrays(case)
    stack = lambda a, axis: a if axis is None else np.stack([a, 2 * a + 1], axis)
    arguments = stack(x, axes[0]), stack(kernel, axes[1])

    def of(f, *arguments):
        step = lambda x, k: (f(x, k), jax.grad(lambda *a: (f(*a) ** 2).mean(), (0, 1))(x, k))
        return jax.vmap(step, axes)(*arguments)

    assert_same(of, options, arguments)


@pytest.mark.parametrize("case", ["same", "strided", "tiny map"])
def test_loop_gives_the_same_gradients(case):
    x, kernel, options = arrays(case)

    def of(f, x, kernel):
        gradient = jax.grad(lambda k, x: (f(x, k) ** 2).mean())
        body = lambda k, x: (k - 0.1 * gradient(k, x), None)
        return jax.lax.scan(body, kernel, jnp.stack([x, x + 1, -x]))[0]

    assert_same(of, options, (x, kernel))


def test_groups_of_channels_equal_those_of_xla():
    x, kernel = draw((2, 9, 8, 6)), draw((3, 3, 2, 12), seed=1)

    def of(f, x, kernel):
        out, pull = jax.vjp(f, x, kernel)
        return out, pull(jnp.cos(out))

    options = {"strides": (2, 2), "padding": ((1, 1), (1, 1))}
    grouped = lambda f: (
        lambda x, kernel, strides, padding: f(
            x,
            kernel,
            strides,
            padding,
            feature_group_count=3,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )
    )
    results = [
        jax.jit(functools.partial(of, functools.partial(grouped(f), **options)))(x, kernel)
        for f in (cpu_ops.conv_general_dilated, jax.lax.conv_general_dilated)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *results)


def test_bfloat16_is_computed_in_bfloat16():
    x, kernel, options = arrays("same", jnp.bfloat16)
    out, pull = jax.vjp(functools.partial(conv, **options), x, kernel)
    assert {a.dtype for a in (out, *pull(out))} == {jnp.dtype(jnp.bfloat16)}
    expected = reference(x.astype(np.float32), kernel.astype(np.float32), **options)
    np.testing.assert_allclose(out.astype(np.float32), expected, atol=0.1)


def test_derivatives_have_the_dimension_order_of_the_fast_path():
    # XLA uses its fast path for this order only; inside loops nothing rearranges the others.
    x, kernel, options = arrays("same")
    loss = lambda x, kernel: (conv(x, kernel, **options) ** 2).sum()
    step = lambda carry, _: (jax.grad(loss, (0, 1))(*carry), None)
    scan = jax.jit(
        lambda x, kernel: jax.lax.scan(step, (x, kernel), length=3)[0],
        compiler_options=compiler_options("cpu"),
    )
    program = scan.lower(x, kernel).compile().as_text()
    orders = {line.split("dim_labels=")[1][:14] for line in program.splitlines() if "dim_l" in line}
    assert orders == {"b01f_01io->b01"}
