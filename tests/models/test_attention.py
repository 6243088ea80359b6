"""Attention by cuDNN's kernel: lowered for a GPU, or with another kernel in its place."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo
from support.problem import make, make_balancer, make_batch, make_model, relative_difference

from mtljax.models import attention
from mtljax.models.attention import dot_product_attention, forward_mode, uses_cudnn
from mtljax.models.cpu_ops import standard_ops
from mtljax.step.telemetry import curvature

ROWS, BATCH, TOKENS, HEADS, WIDTH = 3, 2, 5, 3, 8


@pytest.fixture
def on_gpu(monkeypatch):
    """Takes the path of GPUs, with XLA's operations as the kernel."""

    def kernel(query, key, value, lengths=None):
        options = {"query_seq_lengths": lengths, "key_value_seq_lengths": lengths}
        return jax.nn.dot_product_attention(query, key, value, implementation="xla", **options)

    monkeypatch.setattr(attention, "_kernel", kernel)
    monkeypatch.setattr(attention, "uses_cudnn", lambda query: not forward_mode.value)


def tokens(shape=(BATCH, TOKENS, HEADS, WIDTH), dtype=jnp.float32):
    return [jax.random.normal(jax.random.key(i), shape).astype(dtype) for i in range(3)]


def gradient_rows(function, query, key, value):
    """Gradients of some linear functions of the output, as the train step computes them."""
    shape = (ROWS, *query.shape)
    cotangents = jax.random.normal(jax.random.key(3), shape).astype(query.dtype)
    sums = lambda *tokens: list((cotangents * function(*tokens)).sum(range(1, len(shape))))
    _, push = jax.linearize(sums, query, key, value)
    transpose = lambda row: jax.linear_transpose(push, query, key, value)(list(row))
    return jax.vmap(transpose)(jnp.eye(ROWS, dtype=query.dtype))


over_seeds = lambda function: jax.vmap(functools.partial(gradient_rows, function))
plain = functools.partial(jax.nn.dot_product_attention, implementation="xla")


@pytest.mark.parametrize("count", [4, 5])
def test_rows_and_seeds_through_the_kernel_equal_those_through_plain_attention(on_gpu, count):
    stacked = tokens((2, BATCH, count, HEADS, WIDTH))
    found = jax.jit(over_seeds(dot_product_attention))(*stacked)
    assert relative_difference(jax.jit(over_seeds(plain))(*stacked), found) <= 1e-5


def test_any_axis_and_any_argument_can_be_mapped(on_gpu):
    query, key, value = tokens()
    queries, values = jnp.stack([query, 2 * query], 1), jnp.stack([value, value + 1], -1)
    found, expected = (
        jax.vmap(f, (1, None, -1))(queries, key, values) for f in (dot_product_attention, plain)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_one_call_of_cudnn_computes_the_rows_of_all_seeds(monkeypatch):
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda least: True)
    monkeypatch.setattr(attention, "uses_cudnn", lambda query: True)
    stacked = tokens((2, BATCH, TOKENS, HEADS, WIDTH), jnp.bfloat16)
    traced = jax.jit(over_seeds(dot_product_attention)).trace(*stacked)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    call = r"@__cudnn\$(\w+)\(.*mask_type[^A-Z]+([A-Z_]+).*-> \(tensor<(\w+)xbf16>"
    calls = re.findall(call, text)
    padded = f"{HEADS}x{TOKENS + 1}x{WIDTH}"
    assert calls == [
        ("fmhaSoftmax", "PADDING", f"{2 * BATCH}x{padded}"),
        ("fmhaSoftmaxBackward", "PADDING", f"{2 * ROWS * BATCH}x{padded}"),
    ]


def test_cpus_float32_and_exporters_use_plain_operations(monkeypatch):
    half = tokens(dtype=jnp.bfloat16)[0]
    assert not uses_cudnn(half)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not uses_cudnn(half)  # the probe finds no cuDNN here
    monkeypatch.setattr(attention, "_is_supported", lambda shape, dtype: True)
    assert uses_cudnn(half)
    assert not uses_cudnn(half.astype(jnp.float32))
    with standard_ops(True):
        assert not uses_cudnn(half)


def test_curvature_of_attention_is_computed_in_forward_mode(on_gpu):
    query, key, value = tokens()
    loss = lambda attend, q: (attend(q, key, value) ** 2).sum()
    found = curvature(functools.partial(loss, dot_product_attention), query, value)
    unit = value / jnp.linalg.norm(value)
    along = lambda t: loss(plain, query + t * unit)
    np.testing.assert_allclose(found, jax.grad(jax.grad(along))(0.0), rtol=1e-4)


def test_balancers_that_look_ahead_train_a_vision_transformer(on_gpu):
    trunk = {"width": 8, "heads": 1, "depth": 1, "stages": 1, "patch": 2, "image_size": 4}
    state, step = make(make_balancer("auto_lambda"), model=make_model("vit_ti", **trunk))
    after, _ = jax.jit(step).lower(state, make_batch(0)).out_info
    assert jax.tree.map(jnp.shape, after.params) == jax.tree.map(jnp.shape, state.params)
