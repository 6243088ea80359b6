"""PaLoRA: low-rank adapters per task, combined by the preference."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.conditioning.base import WeightConditioning
from mtljax.models.partition import Flat


class PaLoRA(WeightConditioning):
    """Pareto low-rank adapters: kernel + scale * sum_t preference[t] * A_t B_t.

    Every shared kernel of trunk and fusion has one pair of factors per task; that of a convolution
    is a matrix with the output channels as columns. With B = 0 at first, as in LoRA, training
    starts from the unconditioned network. Train it with balancer `ew`, which weights the losses by
    the same preference.

    Convention: the paper draws preferences by a deterministic schedule; neither its formula nor the
    code was available, so they are drawn from a Dirichlet distribution. `scale` and initial values
    follow LoRA, whose alpha / rank is `scale`.

    Attributes:
      rank: Columns of A and rows of B.
      scale: Factor of the products.

    References:
      Dimitriadis et al., 2024, arXiv:2407.08056; LoRA: Hu et al., 2021, arXiv:2106.09685
    """

    rank: int = 4
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"palora: rank must be >= 1, not {self.rank}")
        super().__post_init__()

    def changes(self, shared: Flat, preference: Float[Array, " T"]) -> Flat:
        kernels = {
            path: leaf
            for path, leaf in shared.items()
            if path.rpartition("/")[2] == "kernel" and leaf.ndim > 1
        }
        return {path: self.change(path, kernel, preference) for path, kernel in kernels.items()}

    def change(self, path: str, kernel: Array, preference: Float[Array, " T"]) -> Array:
        """Change of one kernel."""
        rows, columns = math.prod(kernel.shape[:-1]), kernel.shape[-1]
        name, tasks = "of_" + path.removesuffix("/kernel").replace("/", "."), len(preference)
        small = nn.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=0)
        a = self.param(f"{name}.a", small, (tasks, rows, self.rank))
        b = self.param(f"{name}.b", nn.initializers.zeros, (tasks, self.rank, columns))
        weighted = (preference * self.scale).astype(a.dtype)[:, None, None] * a
        # sum_t over products of rank r is one product of rank T r.
        wide = jnp.moveaxis(weighted, 0, 1).reshape(rows, -1)
        return (wide @ b.reshape(-1, columns)).reshape(kernel.shape)
