"""Balancers: how T losses or gradients become one update. This package needs nothing else of mtljax."""

from mtljax.balancing.base import Balancer, Needs, Signals, aggregate
from mtljax.balancing.conflict import graddrop, pcgrad
from mtljax.balancing.min_norm import mgda
from mtljax.balancing.rates import dwa
from mtljax.balancing.scalarization import ew, fixed
from mtljax.balancing.uncertainty import uw

BALANCERS = {
    "ew": ew,
    "fixed": fixed,
    "uw": uw,
    "dwa": dwa,
    "mgda": mgda,
    "pcgrad": pcgrad,
    "graddrop": graddrop,
}
"""Name -> function that makes the balancer. Each is described in its docstring."""

__all__ = ["BALANCERS", "Balancer", "Needs", "Signals", "aggregate"]
