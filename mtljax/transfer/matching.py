"""Which of a model's variables start from which weights, and what is said about it."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import numpy as np
from jaxtyping import PyTree

from mtljax.models.fusion import Fusion
from mtljax.models.layer_depth import is_in_part
from mtljax.models.partition import TASK_PREFIX, TRANSIENT_COLLECTIONS
from mtljax.transfer.adapting import fit_channels, fit_positions, fit_statistics, in_unit
from mtljax.transfer.torch_names import HEAD
from mtljax.transfer.weights import Stored, Weights, by_our_names, module_of
from mtljax.utils.tree import flatten, unflatten

Part = Literal["trunk", "fusion", "all"]
PARTS = {"trunk": "the trunk", "fusion": "trunk and fusion", "all": "the network"}
MEAN, STD = "constants/mean", "constants/std"
SHOWN = 3
"""Most names that a line shows."""


class Initial(NamedTuple):
    """What a model starts from."""

    variables: dict[str, PyTree]
    """For `create_state(initial=...)`: the variables that do not start fresh."""
    report: tuple[str, ...]
    """Lines for people: what matched, what starts fresh, what is left over."""


NOTHING = Initial({}, ())
"""Everything starts fresh."""


def match(
    stored: Stored,
    model: nn.Module,
    variables: Mapping[str, PyTree],
    *,
    part: Part = "trunk",
    low: float = 0.0,
    high: float = 1.0,
) -> Initial:
    """Finds a model's variables among stored weights.

    What has the same path in both starts from that. Otherwise each copy that a fusion makes of a
    stage starts from the stage of the one trunk that the weights have. The normalisation of images
    comes with the weights.

    Args:
      stored: What `mtljax.transfer.read` gives.
      model: A `MultiTask`; with part `all`, any other, too.
      variables: The model's, or their shapes.
      part: `trunk`; `fusion`: that and all else but the heads; `all`: the heads too. The classifier
        of a PyTorch file is for each linear head of its shape.
      low, high: Black and white of the images that the model is for.

    Raises:
      ValueError: Nothing matches, or a shape does not fit.

    Example:
      >>> import jax
      >>> from mtljax.models import FUSIONS, TRUNKS, build
      >>> from mtljax.tasks import Regression
      >>> model = build(TRUNKS["mlp"](widths=(4,)), FUSIONS["none"], [Regression(name="size")])
      >>> image, key = np.zeros((1, 2, 2, 1), np.float32), jax.random.key(0)
      >>> variables = jax.eval_shape(lambda: model.init(key, image, train=False))
      >>> stored = Stored("mine.safetensors", {"params/fusion/trunk_0/Dense_0/bias": np.ones(4)})
      >>> print(match(stored, model, variables).report[0])
      1 of 2 modules of the trunk start from mine.safetensors (names of mtljax)
    """
    fusion = getattr(model, "fusion", None)
    if not isinstance(fusion, Fusion):
        fusion = None
    if fusion is None and part != "all":
        raise ValueError(f"part={part!r} is of models with a trunk and a fusion; take part='all'")
    weights = by_our_names(stored, fusion.trunk if fusion else ())
    leaves = {
        p: x
        for p, x in flatten(variables).items()
        if p.partition("/")[0] not in TRANSIENT_COLLECTIONS
    }
    matching = Matching(weights, fusion, leaves, _classifier_heads(weights, leaves))
    wanted = [path for path in leaves if matching.is_in(path, part)]
    sources = {path: source for path in wanted if (source := matching.source(path)) is not None}
    if not sources:
        theirs = listed(module_of(name) for name in weights.original if name not in (MEAN, STD))
        raise ValueError(
            f"{weights.where} has nothing for {PARTS[part]}: it has {theirs}, and here are "
            f"{listed(map(module_of, wanted))}; choose the trunk and the fusion that it is of"
        )
    # Kernels first: their shapes say more than those of biases.
    by_axes = sorted(sources, key=lambda path: -len(leaves[path].shape))
    values = {path: matching.fit(path, sources[path]) for path in by_axes}
    if {MEAN, STD} <= weights.arrays.keys() & leaves.keys():
        values |= _statistics(weights, leaves[MEAN].shape, low, high)
    return Initial(unflatten(values), _report(weights, leaves, wanted, sources, part))


@dataclasses.dataclass(frozen=True)
class Matching:
    """Weights and a model that is to start from them."""

    weights: Weights
    fusion: Fusion | None
    leaves: Mapping[str, Any]
    """The model's variables by path, or their shapes."""
    heads: frozenset[str]
    """The heads, by path, that a file's classifier is for."""

    def is_in(self, path: str, part: Part) -> bool:
        """Whether a variable belongs to a part of the model."""
        if path in (MEAN, STD):
            return False
        below = path.partition("/")[2]
        return self.fusion is None or is_in_part(below, part, self.fusion.stage_of)

    def in_trunk(self, path: str) -> str | None:
        """Where a variable would be if the trunk were not copied; None: in no stage of it.

        `params/fusion/digit_trunk_0/stem/kernel` -> `params/fusion/trunk_0/stem/kernel`
        """
        collection, first, *rest = path.split("/")
        if self.fusion is None or first != "fusion":
            return None
        for depth in (1, 2):
            stage = self.fusion.stage_of("/".join(rest[:depth]))
            if stage is not None:
                return "/".join([collection, first, f"trunk_{stage}", *rest[depth:]])
        return None

    def source(self, path: str) -> str | None:
        """Which of the weights a variable starts from; None: from none."""
        collection, *module, leaf = path.split("/")
        head = f"{collection}/{HEAD}/{leaf}" if "/".join(module) in self.heads else None
        options = (path, self.in_trunk(path), head)
        return next((option for option in options if option in self.weights.arrays), None)

    def fit(self, path: str, source: str) -> np.ndarray:
        """The weights that a variable starts from, in its shape.

        Raises:
          ValueError: They have another, and are not of those that can be fitted.
        """
        value, shape = self.weights.arrays[source], self.leaves[path].shape
        if value.shape == shape:
            return value
        fitted = value
        if self._is_first_convolution(path, value.shape):
            std = self.weights.arrays.get(STD, np.ones(1))
            fitted = fit_channels(value, std, shape[2])
        elif path.endswith("/position") and value.ndim == len(shape) == 3:
            fitted = fit_positions(value, shape[1])
        elif [n for n in value.shape if n > 1] == [n for n in shape if n > 1]:
            fitted = value.reshape(shape)  # PyTorch has a linear layer for a 1x1 convolution
        if fitted.shape == shape:
            return fitted
        name = self.weights.original[source]
        here = "here" if name == path else f"{path} here"
        remedy = "choose the trunk that it is of, with its arguments"
        if self.in_trunk(path) is None:
            remedy = "leave it out with --init-part trunk"
        raise ValueError(
            f"{self.weights.where}: {name} has shape {list(value.shape)}, {here} {list(shape)}; "
            f"{remedy}"
        )

    def _is_first_convolution(self, path: str, old: tuple[int, ...]) -> bool:
        """Whether a kernel is one that sees the image, which had other channels before."""
        new = self.leaves[path].shape
        at, mean = self.in_trunk(path) or "", self.leaves.get(MEAN)
        channels = new[2:3] if mean is None else mean.shape or new[2:3]
        same = len(new) == len(old) == 4 and new[:2] == old[:2] and new[3] == old[3]
        return same and at.startswith("params/fusion/trunk_0/") and new[2:3] == channels


def _classifier_heads(weights: Weights, leaves: Mapping[str, Any]) -> frozenset[str]:
    """The heads that a file's classifier is for: linear ones of its shape, or if none is, all."""
    kernel = weights.arrays.get(f"params/{HEAD}/kernel")
    if kernel is None:
        return frozenset()
    heads = {}
    for path, leaf in leaves.items():
        collection, *module, name = path.split("/")
        if len(module) == 2 and module[0].startswith(TASK_PREFIX) and name == "kernel":
            heads["/".join(module)] = leaf.shape
    same = [module for module, shape in heads.items() if shape == kernel.shape]
    return frozenset(same or heads)


def _statistics(
    weights: Weights, shape: tuple[int, ...], low: float, high: float
) -> dict[str, np.ndarray]:
    """The normalisation of the weights, for the images at hand."""
    mean, std = (np.ravel(weights.arrays[name]) for name in (MEAN, STD))
    if weights.low is not None and weights.high is not None and weights.low < weights.high:
        mean, std = in_unit(mean, std, (weights.low, weights.high), (low, high))
    if not shape and len({*zip(mean, std, strict=True)}) > 1:
        raise ValueError(
            f"{weights.where} has a mean and std for each channel: build the model with as many"
        )
    count = shape[0] if shape else 1
    return {
        name: fit_statistics(value, count).reshape(shape)
        for name, value in ((MEAN, mean), (STD, std))
    }


def _report(
    weights: Weights,
    leaves: Mapping[str, Any],
    wanted: Iterable[str],
    sources: Mapping[str, str],
    part: Part,
) -> tuple[str, ...]:
    modules = {module_of(path): None for path in wanted}
    found = {module_of(path): None for path in sources}
    lines = [
        f"{len(found)} of {len(modules)} modules of {PARTS[part]} start from {weights.where} "
        f"(names of {weights.library})"
    ]
    fresh = [path for path in leaves if path not in sources and path not in (MEAN, STD)]
    if fresh:
        lines.append(f"fresh: {listed(map(module_of, fresh))}")
    used = {*sources.values(), MEAN, STD}
    left = [name for ours, name in weights.original.items() if ours not in used]
    if left or weights.unknown:
        lines.append(f"left over: {listed(map(module_of, [*left, *weights.unknown]))}")
    return tuple(lines)


def listed(names: Iterable[str]) -> str:
    """The first few different names, and how many more there are."""
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
