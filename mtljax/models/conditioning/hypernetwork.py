"""Pareto hypernetwork: a small network from the preference to the weights."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.conditioning.base import WeightConditioning
from mtljax.models.partition import Flat

MOST = 2**28
"""Largest number of parameters of the linear layers that generate the weights."""


class Hypernetwork(WeightConditioning):
    """Pareto hypernetwork (PHN): a multilayer perceptron maps the preference to the weights.

    Two hidden layers of `hidden` units with ReLU and a linear one give features of the preference.
    A linear layer per parameter of trunk and fusion maps them to its values; this takes `hidden`
    times the parameters of the network. With `chunk`, one linear layer generates that many values
    at a time from features of the preference and a learned embedding of the chunk.

    Convention: the biases of the linear layers are the initial weights of the network and their
    kernels are 0, so training starts from the unconditioned network; the official code has
    PyTorch's initial values. The product with the kernels is divided by `hidden`, so that a step of
    Adam moves a weight by about the learning rate. In the official code the hypernetwork also
    generates the heads. Train it with balancer `ew` (linear scalarization) or `epo`.

    Attributes:
      hidden: Units of each layer.
      chunk: Number of values generated at a time; None for a linear layer per parameter.

    References:
      Navon et al., 2021, arXiv:2010.04104; chunks: von Oswald et al., 2020, arXiv:1906.00695
    """

    concentration: float = 0.2
    hidden: int = 100
    chunk: int | None = None

    def __post_init__(self) -> None:
        for name in ("hidden", "chunk"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"hypernetwork: {name} must be >= 1, not {getattr(self, name)}")
        super().__post_init__()

    def changes(self, shared: Flat, preference: Float[Array, " T"]) -> Flat:
        if self.chunk is not None:
            return self.in_chunks(shared, preference, self.chunk)
        total = sum(leaf.size for leaf in shared.values())
        if total * self.hidden > MOST:
            raise ValueError(
                f"hypernetwork: linear layers for the network's {total:,} parameters would have "
                f"{total * self.hidden:,}; add chunk=10000 or use a smaller network"
            )
        features = self.features(preference)
        return {
            path: self.generate("of_" + path.replace("/", "."), features, leaf.size).reshape(
                leaf.shape
            )
            for path, leaf in shared.items()
        }

    def in_chunks(self, shared: Flat, preference: Float[Array, " T"], chunk: int) -> Flat:
        """The same, `chunk` values at a time."""
        total = sum(leaf.size for leaf in shared.values())
        count = -(-total // chunk)
        embedding = self.param("chunks", nn.initializers.normal(1.0), (count, self.hidden))
        repeated = jnp.broadcast_to(preference.astype(embedding.dtype), (count, len(preference)))
        features = self.features(jnp.concatenate([repeated, embedding], -1))
        values = self.generate("of_chunk", features, chunk).reshape(-1)
        changes, start = {}, 0
        for path, leaf in shared.items():
            changes[path] = jax.lax.dynamic_slice_in_dim(values, start, leaf.size).reshape(
                leaf.shape
            )
            start += leaf.size
        return changes

    def features(self, inputs: Float[Array, "*N F"]) -> Float[Array, "*N H"]:
        """Features of the preference."""
        x = nn.relu(nn.Dense(self.hidden, name="layer_0")(inputs))
        x = nn.relu(nn.Dense(self.hidden, name="layer_1")(x))
        return nn.Dense(self.hidden, name="layer_2")(x)

    def generate(self, name: str, features: Float[Array, "*N H"], size: int) -> Array:
        """Linear layer without bias, whose values are 0 at first."""
        kernel = self.param(name, nn.initializers.zeros, (self.hidden, size))
        return features.astype(kernel.dtype) @ kernel / self.hidden
