"""What combinators share: signals of weighted losses, states in states, refusals."""

import dataclasses
from typing import Any, NoReturn

from jaxtyping import Array

from mtljax.balancing import base
from mtljax.balancing.rows import scale_rows


def weigh_signals(signals: base.Signals, weights: Array, samples: int) -> base.Signals:
    """Signals of the losses times `weights`, summed over the samples."""
    losses, gramian = signals.losses * weights, signals.gramian
    present, lookahead = signals.present, base.NOT_COMPUTED
    if gramian is not base.NOT_COMPUTED:
        # One factor after the other: the square of 1e20, the weight at a loss of 0, overflows.
        gramian = gramian * weights.reshape(weights.shape + (1,) * weights.ndim) * weights
    if samples > 1:
        losses, present = losses.sum(0), present.any(0)
        gramian = gramian if gramian is base.NOT_COMPUTED else gramian.sum((0, 2))
    jacobian = signals.jacobian
    if jacobian is not base.NOT_COMPUTED:
        jacobian = scale_rows(jacobian, weights)
    return signals._replace(
        losses=losses, present=present, gramian=gramian, jacobian=jacobian, lookahead=lookahead
    )


def around(inner: base.Balancer, **changes: Any) -> base.Balancer:
    """`inner` with other fields; its state is the entry "balancer" of the new state."""
    observe = None
    if inner.observe is not None:

        def observe(signals: base.Signals, losses_after: Array, state: base.State) -> base.State:
            assert inner.observe is not None
            return {**state, "balancer": inner.observe(signals, losses_after, state["balancer"])}

    return dataclasses.replace(inner, observe=observe, spec=None, **changes)


def refuse_balancer(combinator: str, balancer: base.Balancer, reason: str) -> NoReturn:
    """Raises ValueError: `combinator` does not take `balancer`, which `reason`."""
    raise ValueError(f"{combinator} does not take {name_of(balancer)}: it {reason}")


def name_of(balancer: base.Balancer) -> str:
    """Name of the balancer in an error message."""
    return balancer.spec.name if balancer.spec is not None else "this balancer"
