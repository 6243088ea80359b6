"""Conditionings: networks that cover the Pareto front, with the preference as an input.

A conditioned model has the preference as a constant, see `PREFERENCE`. The train step draws a new
one for every batch, and the balancer weights the losses by it. This also holds for a module of your
own with that variable and an attribute `conditioning`, of which the step calls `draw`.
"""

from mtljax.models.conditioning.base import PREFERENCE, Conditioning
from mtljax.models.conditioning.cosmos import Cosmos
from mtljax.models.conditioning.hypernetwork import Hypernetwork
from mtljax.models.conditioning.palora import PaLoRA
from mtljax.utils.registry import choose

CONDITIONINGS: dict[str, type[Conditioning]] = {
    "cosmos": Cosmos,
    "hypernetwork": Hypernetwork,
    "palora": PaLoRA,
}
"""Name -> Linen module."""
HIDDEN = ("parent", "name")
"""Arguments that Flax adds."""


def make_conditioning(text: str) -> Conditioning | None:
    """Creates a conditioning from text such as `palora:rank=8`; None for none.

    Raises:
      ValueError: The name or an argument is unknown or invalid.
    """
    if text == "none":
        return None
    return choose("condition", text, CONDITIONINGS, hidden=HIDDEN).build()


__all__ = [
    "CONDITIONINGS", "HIDDEN", "PREFERENCE", "Conditioning", "Cosmos", "Hypernetwork", "PaLoRA",
    "make_conditioning",
]  # fmt: skip
