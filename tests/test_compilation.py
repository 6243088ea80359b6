"""Compiler options: accepted by the installed jaxlib, silent where they do not apply."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax import compilation


@pytest.mark.parametrize("use", ["train", "once"])
def test_options_are_accepted_by_the_installed_jaxlib_and_change_no_result(use):
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 2, 4))
    image = jax.random.normal(jax.random.key(1), (2, 8, 8, 2))

    def loss(kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        out = jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "SAME", dimension_numbers=dimensions
        )
        return (out**2).sum()

    plain = jax.jit(jax.grad(loss))(kernel)
    tuned = jax.jit(jax.grad(loss), compiler_options=mtljax.compiler_options(use=use))(kernel)
    np.testing.assert_allclose(tuned, plain, rtol=1e-5, atol=1e-4)


def test_backends_that_are_missing_have_no_options():
    assert mtljax.compiler_options("gpu") == mtljax.compiler_options("tpu") == {}


@pytest.mark.parametrize(("devices", "options"), [(1, {}), (2, {"of_several": True})])
def test_communication_is_overlapped_where_there_are_several_devices(monkeypatch, devices, options):
    monkeypatch.setattr(compilation, "OPTIONS_OF_SEVERAL", {"gpu": {"of_several": True}})
    monkeypatch.setattr(compilation, "_device_count", lambda backend: devices)
    monkeypatch.setattr(compilation, "_is_known", lambda *option: True)
    assert mtljax.compiler_options("gpu") == options


def test_options_that_xla_flags_set_are_left_to_the_user(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--{compilation.YNN_FUSION}=-individual_convolution")
    assert compilation.YNN_FUSION not in mtljax.compiler_options("cpu")


def test_an_option_that_jaxlib_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setitem(compilation.OPTIONS["cpu"]["train"], "xla_cpu_no_such_option", 1)
    options = mtljax.compiler_options("cpu")
    assert "xla_cpu_no_such_option" not in options
    assert jax.jit(lambda x: x + 1, compiler_options=options)(jnp.float32(1)) == 2
