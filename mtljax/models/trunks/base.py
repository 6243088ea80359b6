"""Trunks, the values that pass from stage to stage, and decorators of trunk factories."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mtljax.utils.spec import Spec

P = ParamSpec("P")
Stages = tuple[nn.Module, ...]
"""Trunk: its stages, each a module `stage(x, train) -> x`."""


class Carry(NamedTuple):
    """Features, and further values that later stages of the trunk need.

    Most stages return plain features. SegNet also passes the positions of pooled maxima, a ViT the
    tokens that belong to no position of the image. Fusions exchange features, and pass on the rest.
    """

    features: Float[Array, "B ..."]
    """Features of the stage."""
    rest: PyTree[Float[Array, "B ..."]]
    """Further values; their form depends on the trunk."""


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


def drop_path_rates(last: float, depths: Sequence[int]) -> list[tuple[float, ...]]:
    """Rates of stochastic depth per stage, growing linearly from 0 at the first block to `last`."""
    blocks = iter(range(sum(depths)))
    return [tuple(last * next(blocks) / max(1, sum(depths) - 1) for _ in range(n)) for n in depths]


class Trunk(tuple[nn.Module, ...]):
    """Stages of a trunk, as a tuple with a `spec`."""

    spec: Spec
    """Factory call that created the trunk, for the text form in config.json."""


def with_spec(make: Callable[P, Stages]) -> Callable[P, Trunk]:
    """Decorates a trunk factory so that its trunks carry a `spec`."""
    signature = inspect.signature(make)

    @functools.wraps(make)
    def factory(*args: P.args, **kwargs: P.kwargs) -> Trunk:
        trunk = Trunk(make(*args, **kwargs))
        trunk.spec = Spec(make.__name__, signature.bind(*args, **kwargs).arguments)
        return trunk

    return factory


def preset(
    make: Callable[P, Stages], **defaults: Any
) -> Callable[[Callable[[], None]], Callable[P, Trunk]]:
    """Decorates a declaration to be a trunk factory: `make` with other default arguments.

    The factory has the name and docstring of the declaration and the parameters of `make`.
    """

    def decorate(declaration: Callable[[], None]) -> Callable[P, Trunk]:
        build: Callable[P, Stages] = functools.partial(make, **defaults)
        signature = inspect.signature(build)

        @functools.wraps(declaration)
        def factory(*args: P.args, **kwargs: P.kwargs) -> Stages:
            return build(*args, **kwargs)

        factory.__annotations__ = make.__annotations__
        vars(factory)["__signature__"] = signature
        return with_spec(factory)

    return decorate
