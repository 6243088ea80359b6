"""What passes from one stage of a trunk to the next."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


class Carry(NamedTuple):
    """Features, and what else the trunk's later stages need.

    Most stages hand over plain features. A trunk whose later stages need more (where the maximum of
    a pooling window was, tokens that belong to no place in the image) hands over this; a fusion
    sees and exchanges the features, and passes the rest on.
    """

    features: Float[Array, "B ..."]
    rest: PyTree[Float[Array, "B ..."]]


Signal = Array | Carry
"""What a stage takes and gives; the first takes the image."""


def features_of(x: Signal) -> Array:
    """The features, without the rest."""
    return x.features if isinstance(x, Carry) else x


def with_features(x: Signal, features: Array) -> Signal:
    """`x` with other features and the same rest."""
    return x._replace(features=features) if isinstance(x, Carry) else features


def mix(weights: Float[Array, "*B N"], parts: list[Signal]) -> Signal:
    """sum_n weights[..., n] * parts[n], rest included; weights for all examples or for each."""

    def weighted(*leaves):
        terms = []
        for n, leaf in enumerate(leaves):
            weight = weights[..., n]
            terms.append(weight.reshape(weight.shape + (1,) * (leaf.ndim - weight.ndim)) * leaf)
        return functools.reduce(jnp.add, terms)

    return jax.tree.map(weighted, *parts)


def pooled(x: Array) -> Float[Array, "B F"]:
    """Features averaged over space, if they are a map."""
    return x if x.ndim == 2 else jnp.mean(x, tuple(range(1, x.ndim - 1)))
