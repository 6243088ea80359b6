"""Values that pass from one stage of a trunk to the next."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

Stages = tuple[nn.Module, ...]
"""Trunk: its stages, each a module `stage(x, train) -> x`."""


class Carry(NamedTuple):
    """Features, and further values that later stages of the trunk need.

    Most stages return plain features. SegNet also passes the positions of pooled maxima, and a
    vision transformer the tokens that belong to no position of the image. Fusions exchange the
    features and pass on the rest.
    """

    features: Float[Array, "B ..."]
    rest: PyTree[Float[Array, "B ..."]]


Activations = Array | Carry
"""Input and output of a stage; the input of the first stage is the image."""


def features_of(x: Activations) -> Array:
    """The features, without the rest."""
    return x.features if isinstance(x, Carry) else x


def with_features(x: Activations, features: Array) -> Activations:
    """`x` with replaced features and the same rest."""
    return x._replace(features=features) if isinstance(x, Carry) else features


def weighted_sum(weights: Float[Array, "*B N"], parts: Sequence[PyTree]) -> PyTree:
    """sum_n weights[..., n] * parts[n], leaf by leaf; weights [N], or [B, N] per example."""

    def combine(*leaves: Array) -> Array:
        terms = []
        for n, leaf in enumerate(leaves):
            weight = weights[..., n]
            terms.append(weight.reshape(weight.shape + (1,) * (leaf.ndim - weight.ndim)) * leaf)
        return functools.reduce(jnp.add, terms)

    return jax.tree.map(combine, *parts)


def drop_path_rates(last: float, blocks: int) -> list[float]:
    """Rates of stochastic depth that grow linearly from 0 at the first block to `last`."""
    return [last * i / max(1, blocks - 1) for i in range(blocks)]
