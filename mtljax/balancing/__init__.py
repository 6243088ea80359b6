"""Balancers: how T losses or gradients become one update. Needs nothing else of mtljax."""

from collections.abc import Callable

from mtljax.balancing.alignment import aligned_mtl, config, ntkmtl
from mtljax.balancing.base import Ahead, Balancer, Needs, Signals, aggregate
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
    # take a trial step, and look at a second sample of data
    "auto_lambda": auto_lambda,
    "moml": moml,
    "forum": forum,
}
"""Name -> function that makes the balancer. Each is described in its docstring."""

__all__ = ["BALANCERS", "Ahead", "Balancer", "Needs", "Signals", "aggregate"]
