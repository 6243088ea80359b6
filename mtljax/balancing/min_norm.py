"""Methods built on the point of smallest norm in the convex hull of the task gradients."""

import jax.numpy as jnp

from mtljax.balancing import solvers
from mtljax.balancing.base import Balancer, Needs, stateless


def mgda() -> Balancer:
    """Multiple-gradient descent: the common descent direction of least norm.

    The weights are those on the simplex that minimise the norm of sum_t w_t g_t; at a
    Pareto-stationary point that norm is 0.

    Convention: weights sum to 1, gradients are not normalised first; the heads receive their own
    loss.

    References:
      Sener and Koltun, 2018, arXiv:1810.04650; Desideri, 2012
    """

    def combine(signals, state, key):
        del key
        return solvers.min_norm(signals.gramian, jnp.asarray(signals.present)), state

    return Balancer(init=stateless, combine=combine, needs=Needs.GRAMIAN)
