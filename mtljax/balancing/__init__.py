"""Balancers: rules that turn T losses or task gradients into one update.

The package imports no other module of mtljax. Heads (task-specific parameters) receive the gradient
of the unweighted loss unless a balancer's docstring states that they receive the weighted loss.

Example:
  >>> import jax.numpy as jnp
  >>> aggregate(pcgrad(), jnp.array([[1.0, 0.0], [-1.0, 1.0]])).tolist()
  [0.5, 1.5]
"""

import functools
import importlib.resources
import inspect
import json
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
from mtljax.balancing.combinators.samo import samo
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

FAMILIES: dict[str, tuple[Callable[..., Balancer], ...]] = {
    "Fixed functions of the losses": (ew, fixed, si, gls, chebyshev, stch, pbi, cosmos),
    "Weights learned from the losses": (
        *(uw, uw_so, imtl_l, dwa, rlw, famo, igb, go4align, ldc_mtl),
    ),
    "Weights learned on a second sample of data, after a trial step": (auto_lambda, moml, forum),
    "Common descent directions": (mgda, cagrad, imgrad, upgrad, dualproj, pcd, modo, sdmgrad),
    "Surgery of conflicting gradients": (pcgrad, gradvac, graddrop, sam_gs, mocograd),
    "Equal or fair gains": (
        *(imtl_g, imtl, config, nash_mtl, fairgrad, dibs_mtl, pivrg, consmtl, aligned_mtl),
    ),
    "Norms and running means of the gradients": (
        *(gradnorm, ntkmtl, moco, db_mtl, excess_mtl, cr_mogm),
    ),
    "Robust aggregation": (krum, trimmed_mean),
    "Points of a Pareto front": (epo, pmtl, pmgda, ferero, hypervolume),
}
"""Family -> factories of its balancers."""

BALANCERS: dict[str, Callable[..., Balancer]] = {
    make.__name__: make for family in FAMILIES.values() for make in family
}
"""Name -> factory of the balancer."""

COMBINATORS: dict[str, Callable[..., Balancer]] = {
    make.__name__: make for make in (chain, preferred, normalized, every, grouped, samo, cr_mogm)
}
"""Name -> function of balancers, `chain`, or of one balancer and arguments."""


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
    """First line of its docstring."""
    papers: str
    """Authors, year and arXiv number; empty for the plain baselines."""
    needs: Needs
    """Gradient information that it reads."""
    combinators: tuple[str, ...]
    """Names of the combinators that take the balancer; see `COMBINATORS`."""
    cost: float | None
    """Time of a step as a multiple of one with `ew`, for three tasks on CPU (benchmarks/steps.py);
    None if it was not measured."""
    family: str
    """Key in `FAMILIES`."""


def describe(name: str) -> Description:
    """Returns the description of balancer `name` in `list balancers` and the README.

    Example:
      >>> describe("pcgrad").papers
      'Yu et al., 2020, arXiv:2001.06782'
    """
    make = BALANCERS[name]
    text, _, papers = (inspect.getdoc(make) or "").partition("References:\n")
    balancer = make(*([1.0] for _ in required_arguments(name)))
    combinators = tuple(name for name in COMBINATORS if _takes(name, balancer))
    return Description(
        summary=text.partition("\n")[0],
        papers=" ".join(papers.split()),
        needs=balancer.needs,
        combinators=combinators,
        cost=_costs().get(name),
        family=next(family for family, makes in FAMILIES.items() if make in makes),
    )


@functools.cache
def _costs() -> dict[str, float]:
    return json.loads(importlib.resources.files(__name__).joinpath("costs.json").read_text())


def _takes(combinator: str, balancer: Balancer) -> bool:
    required: dict[str, dict[str, Any]] = {
        "every": {"period": 2},
        "preferred": {"preference": (1.0,)},
    }
    before = (ew(),) if combinator == "chain" else ()
    try:
        COMBINATORS[combinator](*before, balancer, **required.get(combinator, {}))
    except ValueError:
        return False
    return True


__all__ = [
    "BALANCERS", "COMBINATORS", "Ahead", "Balancer", "BalancerSpec", "Description", "Needs",
    "Signals", "WithHeads", "aggregate", "aligned_mtl", "auto_lambda", "cagrad", "chain",
    "chebyshev", "config", "consmtl", "cosmos", "cr_mogm", "db_mtl", "describe", "dibs_mtl",
    "dualproj", "dwa", "epo", "every", "ew", "excess_mtl", "fairgrad", "famo", "ferero", "fixed",
    "forum", "from_spec", "gls", "go4align", "graddrop", "gradnorm", "gradvac", "grouped",
    "hypervolume", "igb", "imgrad", "imtl", "imtl_g", "imtl_l", "krum", "ldc_mtl", "mgda", "moco",
    "mocograd", "modo", "moml", "nash_mtl", "normalized", "ntkmtl", "pbi", "pcd", "pcgrad", "pivrg",
    "pmgda", "pmtl", "preference", "preferred", "required_arguments", "rlw", "sam_gs", "samo",
    "sdmgrad", "si", "stch", "trimmed_mean", "upgrad", "uw", "uw_so",
]  # fmt: skip
