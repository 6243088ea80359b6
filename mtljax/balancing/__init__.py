"""Balancers: rules that turn T losses or task gradients into one update.

The package imports no other module of mtljax. Heads (task-specific parameters) receive the gradient
of the unweighted loss unless a balancer's docstring states that they receive the weighted loss.

Example:
  >>> import jax.numpy as jnp
  >>> aggregate(pcgrad(), jnp.array([[1.0, 0.0], [-1.0, 1.0]])).tolist()
  [0.5, 1.5]
"""

from collections.abc import Callable

from mtljax.balancing.alignment import aligned_mtl, config, ntkmtl
from mtljax.balancing.base import Ahead, Balancer, BalancerSpec, Needs, Signals, aggregate
from mtljax.balancing.bilevel import auto_lambda, forum, moml
from mtljax.balancing.conflict import graddrop, gradvac, pcgrad
from mtljax.balancing.dual_cone import dualproj, upgrad
from mtljax.balancing.fair import fairgrad, imtl, imtl_g, nash_mtl
from mtljax.balancing.groups import go4align
from mtljax.balancing.min_norm import cagrad, imgrad, mgda
from mtljax.balancing.momentum import cr_mogm, db_mtl, excess_mtl, moco
from mtljax.balancing.rates import dwa, famo, gradnorm, rlw
from mtljax.balancing.robust import krum, trimmed_mean
from mtljax.balancing.scalarization import chebyshev, cosmos, ew, fixed, gls, pbi, si, stch
from mtljax.balancing.stochastic import modo, sdmgrad
from mtljax.balancing.uncertainty import imtl_l, uw, uw_so

BALANCERS: dict[str, Callable[..., Balancer]] = {
    # read the losses
    "ew": ew,
    "fixed": fixed,
    "si": si,
    "gls": gls,
    "uw": uw,
    "uw_so": uw_so,
    "imtl_l": imtl_l,
    "dwa": dwa,
    "rlw": rlw,
    "famo": famo,
    "go4align": go4align,
    "chebyshev": chebyshev,
    "stch": stch,
    "pbi": pbi,
    "cosmos": cosmos,
    # read the Gramian
    "gradnorm": gradnorm,
    "mgda": mgda,
    "pcgrad": pcgrad,
    "gradvac": gradvac,
    "cagrad": cagrad,
    "imgrad": imgrad,
    "imtl_g": imtl_g,
    "imtl": imtl,
    "nash_mtl": nash_mtl,
    "fairgrad": fairgrad,
    "aligned_mtl": aligned_mtl,
    "config": config,
    "ntkmtl": ntkmtl,
    "upgrad": upgrad,
    "dualproj": dualproj,
    "krum": krum,
    "cr_mogm": cr_mogm,
    "sdmgrad": sdmgrad,
    "modo": modo,
    # read the Jacobian
    "graddrop": graddrop,
    "trimmed_mean": trimmed_mean,
    "moco": moco,
    "db_mtl": db_mtl,
    "excess_mtl": excess_mtl,
    # take a trial step and read a second sample of data
    "auto_lambda": auto_lambda,
    "moml": moml,
    "forum": forum,
}
"""Name -> factory of the balancer."""


def from_spec(spec: BalancerSpec) -> Balancer:
    """Creates the balancer again that has this spec.

    Example:
      >>> from_spec(cr_mogm(cagrad(c=0.4)).spec).spec.arguments["balancer"].arguments
      {'c': 0.4}
    """
    arguments = {
        name: from_spec(value) if isinstance(value, BalancerSpec) else value
        for name, value in spec.arguments.items()
    }
    return BALANCERS[spec.name](**arguments)


__all__ = [
    "BALANCERS",
    "Ahead",
    "Balancer",
    "BalancerSpec",
    "Needs",
    "Signals",
    "aggregate",
    "aligned_mtl",
    "auto_lambda",
    "cagrad",
    "chebyshev",
    "config",
    "cosmos",
    "cr_mogm",
    "db_mtl",
    "dualproj",
    "dwa",
    "ew",
    "excess_mtl",
    "fairgrad",
    "famo",
    "fixed",
    "forum",
    "from_spec",
    "gls",
    "go4align",
    "graddrop",
    "gradnorm",
    "gradvac",
    "imgrad",
    "imtl",
    "imtl_g",
    "imtl_l",
    "krum",
    "mgda",
    "moco",
    "modo",
    "moml",
    "nash_mtl",
    "ntkmtl",
    "pbi",
    "pcgrad",
    "rlw",
    "sdmgrad",
    "si",
    "stch",
    "trimmed_mean",
    "upgrad",
    "uw",
    "uw_so",
]
