"""DSelect-k."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtljax.models.fusion.experts import Mixture
from mtljax.models.partition import TASK_PREFIX


class DSelectK(Mixture):
    """Mixture of experts whose gates choose at most `k` experts, by a smooth binary code.

    Selector j of a task has log2(experts) numbers z_j. With S a cubic step from 0 to 1 of width
    `gamma`, expert n with binary digits b has weight r(z_j)_n = prod_i (S(z_ji) if b_i else
    1 - S(z_ji)). The gate is sum_j softmax(a)_j r(z_j). If all z_ji are outside the step, each
    selector selects one expert. The paper's optional entropy penalty is not implemented. Experts
    are shared, z and a task-specific. Representation: see `Mixture`. `intermediates` are the gates.

    Attributes:
      experts: Number of experts, a power of two.
      k: Number of selectors, the maximum number of experts per task.
      gamma: Width of the step.
      per_example: True to compute z and a from the features of each example; False for parameters.

    References:
      Hazimeh et al., 2021, arXiv:2106.03760
    """

    k: int = 2
    gamma: float = 1.0
    per_example: bool = False

    def gate(self, task: str) -> nn.Module:
        if self.experts < 2 or self.experts & (self.experts - 1):
            raise ValueError(
                f"fusion dselect_k: experts={self.experts} is not a power of two; take 2, 4, 8, ..."
            )
        return SelectorGate(
            self.experts, self.k, self.gamma, self.per_example, parent=self, name=TASK_PREFIX + task
        )


class SelectorGate(nn.Module):
    """Gate of one task: its selectors and their weights."""

    experts: int
    """Number of experts, a power of two."""
    k: int
    """Number of selectors."""
    gamma: float
    """Width of the smooth step."""
    per_example: bool
    """As in `DSelectK`."""

    @nn.compact
    def __call__(self, summary: Float[Array, "B F"]) -> Float[Array, "*B N"]:
        digits = self.experts.bit_length() - 1
        if self.per_example:
            near_zero = nn.initializers.normal(self.gamma / 100)
            code = nn.Dense(self.k * digits, kernel_init=near_zero, name="code")(summary)
            code = code.reshape(-1, self.k, digits)
            logits = nn.Dense(self.k, name="selectors")(summary)
        else:
            code = self.param("code", uniform(self.gamma / 100), (self.k, digits))
            logits = self.param("selectors", uniform(0.05), (self.k,))
        selected = select(code, self.experts, self.gamma)
        gate = jnp.einsum("...k,...kn->...n", nn.softmax(logits), selected)
        self.sow("intermediates", "gate", gate)
        return gate


def uniform(limit: float) -> nn.initializers.Initializer:
    """Uniform initializer on [-limit, limit]."""
    return lambda key, shape: jax.random.uniform(key, shape, minval=-limit, maxval=limit)


def smooth_step(t: Array, gamma: float) -> Array:
    """0 below -gamma/2, 1 above gamma/2, a cubic with matching slopes in between."""
    t = jnp.clip(t / gamma, -0.5, 0.5)
    return t * (1.5 - 2 * t * t) + 0.5


def select(code: Float[Array, "*B m"], experts: int, gamma: float) -> Float[Array, "*B N"]:
    """Weight of each expert for a code; weights are >= 0 and sum to 1."""
    step = smooth_step(code, gamma)[..., None, :]
    digits = (jnp.arange(experts)[:, None] >> jnp.arange(code.shape[-1])) & 1
    return jnp.where(digits == 1, step, 1 - step).prod(-1)
