"""Methods that remove the bias of stochastic gradients with several independent samples."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from mtljax.balancing import base, solvers


@base.with_spec
def sdmgrad(
    regularization: float = 0.3, iterations: int = 20, step_size: float = 5.0, momentum: float = 0.5
) -> base.Balancer:
    """SDMGrad: MGDA regularized towards the mean gradient, on independent samples.

    With H = J_1 J_2' over two samples, normalized to unit scale, w takes `iterations` projected
    steps with momentum on the simplex along -H (w + r / T), r = `regularization`, from the last
    step's weights. On a third sample, the update is (sum_t w_t g_t + r * mean g) / (1 + r).

    Convention: weights sum to 1; a task needs labels in all samples; defaults of LibMTL.

    Args:
      regularization: The paper's lambda.
      iterations: Number of steps on w per update.
      step_size: Size of the steps on w; 10 in TorchJD.
      momentum: Momentum of the steps on w.

    References:
      Xiao, Ban and Ji, 2023, arXiv:2305.18409
    """

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present.all(0)
        products = jnp.where(present[:, None] & present[None, :], signals.gramian[1, :, 2, :], 0.0)
        count = jnp.maximum(present.sum(), 1)
        largest = jnp.maximum(jnp.max(jnp.abs(products)), base.TINY)
        products = products / largest
        norms = jnp.sqrt(jnp.maximum(jnp.diagonal(products), 0.0))
        scale = jnp.square(norms.sum() / count)
        products = products / jnp.where(scale > 0, scale, 1.0)
        mean = base.mean_weights(signals, present)

        def iterate(_: Array, carry: tuple) -> tuple:
            weights, velocity = carry
            gradient = solvers.matvec(products, weights + regularization * mean)
            velocity = momentum * velocity + gradient
            return solvers.project_simplex(weights - step_size * velocity, present), velocity

        before, mass = _start(state["weights"], present)
        start = before, jnp.zeros_like(before)
        weights, _ = jax.lax.fori_loop(0, iterations, iterate, start)
        state = {"weights": jnp.where(present, weights * mass, state["weights"])}
        first = (weights + regularization * mean) / (1 + regularization)
        return _on(0, first, 3), state

    needs = base.Needs.GRAMIAN
    return base.Balancer(init=_equal, combine=combine, needs=needs, samples=3, prefers=True)


@base.with_spec
def modo(gamma: float = 1e-3, rho: float = 0.1) -> base.Balancer:
    """MoDo: MGDA with one weight step per update, on independent samples.

    w starts from 1 / T and becomes the point of the simplex nearest to w - gamma (J_1 J_2' w + rho
    w); the update is sum_t w_t g_t on a third sample.

    Convention: weights sum to 1; a task needs labels in all samples; defaults of LibMTL.

    Args:
      gamma: Step size of the weights; 0.1 in TorchJD.
      rho: L2 penalty on the weights.

    References:
      Chen et al., 2023, arXiv:2305.20057
    """

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present.all(0)
        before, mass = _start(state["weights"], present)
        pull = solvers.matvec(signals.gramian[1, :, 2, :], before) + rho * before
        weights = solvers.project_simplex(before - gamma * pull, present)
        state = {"weights": jnp.where(present, weights * mass, state["weights"])}
        return _on(0, weights, 3), state

    return base.Balancer(init=_equal, combine=combine, needs=base.Needs.GRAMIAN, samples=3)


def _equal(num_tasks: int, shared: PyTree) -> base.State:
    return {"weights": jnp.full(num_tasks, 1 / num_tasks, jnp.float32)}


def _start(weights: Array, present: Array) -> tuple[Array, Array]:
    """Weights of the present tasks normalized to sum 1, and their sum before."""
    before = jnp.where(present, weights, 0.0)
    mass = before.sum()
    normalized = before / jnp.where(mass > 0, mass, 1.0)
    return jnp.where(mass > 0, normalized, base.equal_weights(present)), mass


def _on(sample: int, weights: Array, samples: int) -> Array:
    """[samples, T]: the weights on one sample, 0 on every other."""
    return jnp.zeros((samples, weights.shape[0])).at[sample].set(weights)
