"""Matching of a model's variables with stored weights."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import numpy as np
from jaxtyping import PyTree

from mtljax.models.conditioning import PREFERENCE
from mtljax.models.fusion import Fusion
from mtljax.models.layer_depth import is_in_part
from mtljax.models.partition import TASK_PREFIX, TRANSIENT_COLLECTIONS
from mtljax.transfer.adapting import fit_channels, fit_positions, fit_statistics, in_unit
from mtljax.transfer.torch_names import CLASSIFIER
from mtljax.transfer.weights import StoredWeights, Weights, module_of, to_mtljax_names
from mtljax.utils.tree import flatten, unflatten

Part = Literal["trunk", "fusion", "all"]
"""Part of a network to initialize; see `match`."""
PARTS = {"trunk": "the trunk", "fusion": "trunk and fusion", "all": "the network"}
"""Part -> its name in messages."""
MEAN, STD = "constants/mean", "constants/std"
"""Paths of the statistics of the training images."""
CONSTANTS = (MEAN, STD, f"constants/{PREFERENCE}")
"""Variables that are not learned."""
SHOWN = 3
"""Largest number of names in a line of the report."""


class InitialVariables(NamedTuple):
    """Initial variables of a model."""

    variables: dict[str, PyTree]
    """Argument of `create_state(initial=...)`: the variables that are not random."""
    report: tuple[str, ...]
    """Lines to print: matched, randomly initialized and unused modules."""


NO_INITIAL = InitialVariables({}, ())
"""Random initialization of all variables."""


def match(
    stored: StoredWeights,
    model: nn.Module,
    variables: Mapping[str, PyTree],
    *,
    part: Part = "trunk",
    low: float = 0.0,
    high: float = 1.0,
) -> InitialVariables:
    """Initializes a model's variables from stored weights.

    A variable is initialized from the weights at the same path. If there are none, every copy of a
    trunk stage in a fusion is initialized from that stage of the stored trunk. The statistics for
    normalization are taken from the weights as well.

    Args:
      model: A `MultiTask`; with part `all`, any model.
      variables: Variables of the model, or their shapes.
      part: `trunk`; `fusion`: everything but the heads; `all`: also the heads. The classifier of a
        PyTorch file initializes every linear head of its shape.
      low, high: Black and white in the unit of the model's images.

    Raises:
      ValueError: No module matches, or a shape differs.

    Example:
      >>> import jax
      >>> from mtljax.models import FUSIONS, TRUNKS, build
      >>> from mtljax.tasks import Regression
      >>> model = build(TRUNKS["mlp"](widths=(4,)), FUSIONS["none"], [Regression(name="size")])
      >>> image, key = np.zeros((1, 2, 2, 1), np.float32), jax.random.key(0)
      >>> variables = jax.eval_shape(lambda: model.init(key, image, train=False))
      >>> weights = {"params/fusion/trunk_0/Dense_0/bias": np.ones(4)}
      >>> stored = StoredWeights("mine.safetensors", weights)
      >>> print(match(stored, model, variables).report[0])
      1 of 2 modules of the trunk initialized from mine.safetensors (mtljax names)
    """
    fusion = getattr(model, "fusion", None)
    fusion = fusion if isinstance(fusion, Fusion) else None
    if fusion is None and part != "all":
        raise ValueError(f"part={part!r} needs a model with trunk and fusion; use part='all'")
    weights = to_mtljax_names(stored, fusion.trunk if fusion else ())
    leaves = flatten({k: v for k, v in variables.items() if k not in TRANSIENT_COLLECTIONS})
    matching = Matching(weights, fusion, leaves, _classifier_heads(weights, leaves))
    selected = [path for path in leaves if matching.is_in(path, part)]
    sources = {path: source for path in selected if (source := matching.source(path)) is not None}
    if not sources:
        modules = listed(module_of(name) for name in weights.original if name not in CONSTANTS)
        raise ValueError(
            f"{weights.source} has no weights for {PARTS[part]}: it has {modules}; the model has "
            f"{listed(map(module_of, selected))}; choose the trunk and fusion of the weights"
        )
    # Kernels first: an error about a kernel is clearer than one about a bias.
    by_axes = sorted(sources, key=lambda path: -len(leaves[path].shape))
    values = {path: matching.fit(path, sources[path]) for path in by_axes}
    if {MEAN, STD} <= weights.arrays.keys() & leaves.keys():
        values |= _statistics(weights, leaves[MEAN].shape, low, high)
    return InitialVariables(unflatten(values), _report(weights, leaves, selected, sources, part))


@dataclasses.dataclass(frozen=True)
class Matching:
    """Stored weights and the model to initialize."""

    weights: Weights
    """Stored weights with the names of mtljax."""
    fusion: Fusion | None
    """Fusion of the model; None for a model of another kind."""
    leaves: Mapping[str, Any]
    """Variables of the model by path, or their shapes."""
    heads: frozenset[str]
    """Paths of the heads to initialize from the stored classifier."""

    def is_in(self, path: str, part: Part) -> bool:
        """Returns True if a variable belongs to a part of the model."""
        if path in CONSTANTS:
            return False
        below = path.partition("/")[2]
        return self.fusion is None or is_in_part(below, part, self.fusion.stage_of)

    def in_trunk(self, path: str) -> str | None:
        """Returns the path of a variable in a trunk without copies; None if it is in no stage.

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
        """Returns the name of the weights for a variable, or None."""
        collection, *module, leaf = path.split("/")
        head = f"{collection}/{CLASSIFIER}/{leaf}" if "/".join(module) in self.heads else None
        options = (path, self.in_trunk(path), head)
        return next((option for option in options if option in self.weights.arrays), None)

    def fit(self, path: str, source: str) -> np.ndarray:
        """Returns the weights for a variable, adapted to its shape if possible, else ValueError."""
        value, shape = self.weights.arrays[source], self.leaves[path].shape
        old, new = (_appended_channels(x) for x in (self.weights.arrays, self.leaves))
        is_first = self._is_first_convolution(path, value.shape)
        if value.shape == shape and not (is_first and old != new):
            return value
        fitted = value
        if is_first:
            std = self.weights.arrays.get(STD, np.ones(1))
            fitted = fit_channels(value[:, :, : value.shape[2] - old], std, shape[2] - new)
            fitted = np.pad(fitted, ((0, 0), (0, 0), (0, new), (0, 0)))
        elif path.endswith("/position") and value.ndim == len(shape) == 3:
            fitted = fit_positions(value, shape[1])
        elif [n for n in value.shape if n > 1] == [n for n in shape if n > 1]:
            fitted = value.reshape(shape)  # PyTorch uses a linear layer for a 1x1 convolution
        if fitted.shape == shape:
            return fitted
        name, in_trunk = self.weights.original[source], self.in_trunk(path) is not None
        here = "the model" if name == path else f"{path} of the model"
        remedy = "choose the trunk of the weights, with its arguments"
        remedy = remedy if in_trunk else "exclude it with --init-part trunk"
        shapes = f"{name} has shape {list(value.shape)}, {here} has {list(shape)}"
        raise ValueError(f"{self.weights.source}: {shapes}; {remedy}")

    def _is_first_convolution(self, path: str, old: tuple[int, ...]) -> bool:
        """Returns True for the kernel of the first convolution, if at most the channels differ."""
        new = self.leaves[path].shape
        in_trunk, mean = self.in_trunk(path) or "", self.leaves.get(MEAN)
        same = len(new) == len(old) == 4 and new[:2] == old[:2] and new[3] == old[3]
        if not same or not in_trunk.startswith("params/fusion/trunk_0/"):
            return False
        if new[2] == old[2]:  # with and without the channels of a preference
            known = np.shape(self.weights.arrays.get(MEAN, 0.0))
            return known == (old[2] - _appended_channels(self.weights.arrays),)
        channels = (new[2] - _appended_channels(self.leaves),)
        return mean is None or (mean.shape or channels) == channels


def _appended_channels(variables: Mapping[str, Any]) -> int:
    """Returns the number of channels that condition `cosmos` appends to the image."""
    is_cosmos = not any(path.startswith("params/conditioning/of_") for path in variables)
    preference = variables.get(CONSTANTS[-1]) if is_cosmos else None
    return 0 if preference is None else preference.shape[0]


def _classifier_heads(weights: Weights, leaves: Mapping[str, Any]) -> frozenset[str]:
    """Returns the linear heads of the shape of a stored classifier; all linear heads if none."""
    kernel = weights.arrays.get(f"params/{CLASSIFIER}/kernel")
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
    """Returns the stored statistics for normalization, in the unit of the model's images."""
    mean, std = (np.ravel(weights.arrays[name]) for name in (MEAN, STD))
    if weights.low is not None and weights.high is not None and weights.low < weights.high:
        mean, std = in_unit(mean, std, (weights.low, weights.high), (low, high))
    if not shape and len({*zip(mean, std, strict=True)}) > 1:
        raise ValueError(
            f"{weights.source} has a mean and std per channel: build the model with one per channel"
        )
    fit = lambda values: fit_statistics(values, shape[0] if shape else 1).reshape(shape)
    return {MEAN: fit(mean), STD: fit(std)}


def _report(
    weights: Weights,
    leaves: Mapping[str, Any],
    selected: Iterable[str],
    sources: Mapping[str, str],
    part: Part,
) -> tuple[str, ...]:
    modules, initialized = set(map(module_of, selected)), set(map(module_of, sources))
    counts = f"{len(initialized)} of {len(modules)} modules of {PARTS[part]}"
    lines = [f"{counts} initialized from {weights.source} ({weights.library} names)"]
    random = [path for path in leaves if path not in sources and path not in CONSTANTS]
    if random:
        lines.append(f"randomly initialized: {listed(map(module_of, random))}")
    used = {*sources.values(), *CONSTANTS}
    unused = [original for name, original in weights.original.items() if name not in used]
    if unused or weights.unknown:
        lines.append(f"unused: {listed(map(module_of, [*unused, *weights.unknown]))}")
    return tuple(lines)


def listed(names: Iterable[str]) -> str:
    """Joins the first few distinct names, with the number of further ones."""
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
