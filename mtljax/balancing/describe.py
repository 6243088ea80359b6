"""Descriptions of balancers from their docstrings, for lists and tables."""

import inspect
from typing import NamedTuple

from mtljax.balancing import BALANCERS, Needs


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
    required = [p for p in inspect.signature(make).parameters.values() if p.default is p.empty]
    needs = make(*([1.0] for _ in required)).needs  # `fixed` requires its weights
    return Description(text.partition("\n")[0], " ".join(papers.split()), needs)
