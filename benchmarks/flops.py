"""Floating-point operations of a function, counted in its jaxpr, and peak rates of devices."""

import math

import jax
from jax.extend import core

from mtljax.models.convolution import CONVOLUTIONS

PEAK_TFLOPS = {
    "B200": 2250,
    "H200": 990,
    "H100 PCIe": 756,
    "H100": 990,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A10": 125,
    "TPU v6 lite": 918,
    "TPU v5 lite": 197,
    "TPU v5": 459,
    "TPU v4": 275,
}
"""Part of a device's name -> dense bf16 TFLOP/s in its datasheet; the first match counts."""


def peak_tflops(device_kind):
    """Returns the peak rate of a device in bf16, None if it is not in the table."""
    return next((rate for name, rate in PEAK_TFLOPS.items() if name in device_kind), None)


def count(function, *arguments):
    """Returns the operations of the convolutions and matrix products of a function.

    A multiplication and an addition count as two; products with the zeros of a padded edge count,
    those with the zeros of a dilated input do not. A `while` loop counts as one pass.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr):
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        operands = [variable.aval for variable in (*equation.invars, *equation.outvars)]
        if name == "dot_general":
            total += _dot(*operands[:2], params["dimension_numbers"])
        elif name in CONVOLUTIONS:
            total += _convolution(operands[1].shape, operands[-1].shape, params)
        elif name == "cond":
            total += max(_count(branch.jaxpr) for branch in params["branches"])
        else:
            total += params.get("length", 1) * sum(map(_count, _inner(params)))
    return total


def _inner(params):
    """Yields the jaxprs among the parameters of an equation."""
    for value in params.values():
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value


def _dot(left, right, dimension_numbers):
    (contracted, _), (batch, _) = dimension_numbers
    depth = math.prod(left.shape[axis] for axis in contracted)
    shared = depth * math.prod(left.shape[axis] for axis in batch)
    return 2 * math.prod(left.shape) * math.prod(right.shape) // shared


def _convolution(kernel, out, params):
    """A kernel has as many input channels as one group of the input."""
    if "input_dilation" in params:  # `mtljax.models.convolution`
        features, stuffed = kernel[-1], math.prod(params["input_dilation"])
    else:
        features = kernel[params["dimension_numbers"].rhs_spec[0]]
        stuffed = math.prod(params["lhs_dilation"]) * params["batch_group_count"]
    return 2 * math.prod(out) * math.prod(kernel) // features // stuffed
