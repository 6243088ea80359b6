"""Balancers: rules that turn T losses or task gradients into one update.

The package imports no other module of mtljax. Heads (task-specific parameters) receive the gradient
of the unweighted loss unless a balancer's docstring states that they receive the weighted loss.

Example:
  >>> import jax.numpy as jnp
  >>> aggregate(pcgrad(), jnp.array([[1.0, 0.0], [-1.0, 1.0]])).tolist()
  [0.5, 1.5]
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from mtljax.balancing.alignment import aligned_mtl, config, ntkmtl
from mtljax.balancing.base import (
    Ahead,
    Balancer,
    BalancerSpec,
    Needs,
    Signals,
    WithHeads,
    preference,
)
from mtljax.balancing.bilevel import auto_lambda, forum, moml
from mtljax.balancing.combinators.chain import chain
from mtljax.balancing.combinators.every import every
from mtljax.balancing.combinators.grouped import grouped
from mtljax.balancing.combinators.normalized import normalized
from mtljax.balancing.combinators.preferred import preferred
from mtljax.balancing.conflict import dualproj, graddrop, gradvac, pcgrad, upgrad
from mtljax.balancing.discrepancy import ldc_mtl
from mtljax.balancing.fair import consmtl, dibs_mtl, fairgrad, imtl, imtl_g, nash_mtl, pivrg
from mtljax.balancing.fronts import hypervolume, pmtl
from mtljax.balancing.groups import go4align
from mtljax.balancing.matrix import aggregate
from mtljax.balancing.min_norm import cagrad, imgrad, mgda
from mtljax.balancing.momentum import cr_mogm, db_mtl, excess_mtl, moco
from mtljax.balancing.momentum_surgery import mocograd, sam_gs
from mtljax.balancing.preferences import epo, ferero, pmgda
from mtljax.balancing.priority import pcd
from mtljax.balancing.rates import dwa, famo, gradnorm, igb, rlw
from mtljax.balancing.robust import krum, trimmed_mean
from mtljax.balancing.scalarization import chebyshev, cosmos, ew, fixed, gls, pbi, si, stch
from mtljax.balancing.stochastic import modo, sdmgrad
from mtljax.balancing.uncertainty import imtl_l, uw, uw_so

BALANCERS: dict[str, Callable[..., Balancer]] = {
    make.__name__: make
    for make in (
        # read the losses
        *(ew, fixed, si, gls, uw, uw_so, imtl_l, dwa, rlw, famo),
        *(go4align, chebyshev, stch, pbi, cosmos),
        *(ldc_mtl, igb, hypervolume),
        # read the Gramian
        *(gradnorm, mgda, pcgrad, gradvac, cagrad, imgrad, imtl_g, imtl, nash_mtl, fairgrad),
        *(aligned_mtl, config, ntkmtl, upgrad, dualproj, krum, cr_mogm, sdmgrad, modo),
        *(pivrg, consmtl, dibs_mtl, pcd),
        *(epo, pmtl, pmgda, ferero),
        # read the Jacobian
        *(sam_gs, mocograd),
        *(graddrop, trimmed_mean, moco, db_mtl, excess_mtl),
        # take a trial step and read a second sample of data
        *(auto_lambda, moml, forum),
    )
}
"""Name -> factory of the balancer."""

COMBINATORS: dict[str, Callable[..., Balancer]] = {
    make.__name__: make for make in (chain, preferred, normalized, every, grouped, cr_mogm)
}
"""Name -> function of balancers, `chain`, or of one balancer and arguments, all others."""


def from_spec(spec: BalancerSpec) -> Balancer:
    """Creates the balancer again that has this spec.

    Example:
      >>> from_spec(cr_mogm(cagrad(c=0.4)).spec).spec.arguments["balancer"].arguments
      {'c': 0.4}
    """

    def read(value: Any) -> Any:
        if isinstance(value, BalancerSpec):
            return from_spec(value)
        if isinstance(value, tuple) and any(isinstance(item, BalancerSpec) for item in value):
            return tuple(map(read, value))
        return value

    arguments = {name: read(value) for name, value in spec.arguments.items()}
    if spec.name == chain.__name__:
        return chain(*arguments["balancers"])
    return (BALANCERS | COMBINATORS)[spec.name](**arguments)


def required_arguments(name: str) -> list[str]:
    """Returns the arguments that the balancer `name` requires: each is one number per task.

    Example:
      >>> required_arguments("fixed")
      ['weights']
    """
    parameters = inspect.signature(BALANCERS[name]).parameters.values()
    return [parameter.name for parameter in parameters if parameter.default is parameter.empty]


class Description(NamedTuple):
    """Description of a balancer."""

    summary: str
    papers: str
    """Authors, year and arXiv number; empty for the plain baselines."""
    needs: Needs


def describe(name: str) -> Description:
    """Returns the summary, papers and input of the balancer `name`.

    Example:
      >>> describe("pcgrad").papers
      'Yu et al., 2020, arXiv:2001.06782'
    """
    make = BALANCERS[name]
    text, _, papers = (inspect.getdoc(make) or "").partition("References:\n")
    needs = make(*([1.0] for _ in required_arguments(name))).needs
    return Description(text.partition("\n")[0], " ".join(papers.split()), needs)


__all__ = [
    "BALANCERS", "COMBINATORS", "Ahead", "Balancer", "BalancerSpec", "Description", "Needs",
    "Signals", "WithHeads", "aggregate", "aligned_mtl", "auto_lambda", "cagrad", "chain",
    "chebyshev", "config", "consmtl", "cosmos", "cr_mogm", "db_mtl", "describe", "dibs_mtl",
    "dualproj", "dwa", "epo", "every", "ew", "excess_mtl", "fairgrad", "famo", "ferero", "fixed",
    "forum", "from_spec", "gls", "go4align", "graddrop", "gradnorm", "gradvac", "grouped",
    "hypervolume", "igb", "imgrad", "imtl", "imtl_g", "imtl_l", "krum", "ldc_mtl", "mgda", "moco",
    "mocograd", "modo", "moml", "nash_mtl", "normalized", "ntkmtl", "pbi", "pcd", "pcgrad", "pivrg",
    "pmgda", "pmtl", "preference", "preferred", "required_arguments", "rlw", "sam_gs", "sdmgrad",
    "si", "stch", "trimmed_mean", "upgrad", "uw", "uw_so",
]  # fmt: skip
