"""Multi-task network with merged parameters and the heads of the merged runs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import PyTree

from mtljax.compilation import compiler_options
from mtljax.merging.base import shapes
from mtljax.models.batch_statistics import cumulative_statistics, frozen_statistics
from mtljax.models.partition import join, partition, task_of
from mtljax.utils.tree import flatten, unflatten

CONSTANTS, STATISTICS = "constants", "batch_stats"
"""Names of collections."""
Variables = Mapping[str, PyTree]
"""Collection -> variables."""


class MergedNetwork:
    """Multi-task network whose shared parameters are given, and the rest is that of the runs.

    Batch statistics are estimated again: merged parameters have other activations than the networks
    they come from, so that averages of those networks' statistics do not fit them.

    References:
      Jordan et al., 2022, arXiv:2211.08403 (REPAIR); Izmailov et al., 2018, arXiv:1803.05407
    """

    def __init__(
        self,
        model: nn.Module,
        runs: Sequence[Variables],
        template: Variables,
        *,
        freeze_statistics: bool = False,
    ):
        """Takes the heads from the runs.

        Args:
          model: The multi-task network.
          runs: Variables of the single-task networks.
          template: Variables of the multi-task network, for their names and shapes.
          freeze_statistics: Batch normalization works as in the runs, whose statistics are equal.

        Raises:
          ValueError: A head of the network is not that of a run.
        """
        self._model, self._freeze = model, freeze_statistics
        self._heads: dict[str, Any] = {}
        for run in runs:
            self._heads |= partition(run["params"])[1]
        given, expected = map(shapes, (self._heads, partition(template["params"])[1]))
        if given != expected:
            path = min(given.items() ^ expected.items())[0]
            raise ValueError(f"the heads of the runs do not fit one network: {path} differs")
        self._state = {
            name: _joined([run[name] for run in runs], template[name])
            for name in template
            if name != "params"
        }
        self._estimate = jax.jit(self._statistics, compiler_options=compiler_options())

    def variables(
        self, shared: Mapping[str, Any], images: Iterable[PyTree] = ()
    ) -> dict[str, PyTree]:
        """Variables with these shared parameters, and batch statistics of batches of images."""
        variables = {"params": join(dict(shared), self._heads), **self._state}
        if self.estimates_statistics:
            for number, image in enumerate(images):
                variables[STATISTICS] = self._estimate(variables, image, float(number))
        return variables

    @property
    def estimates_statistics(self) -> bool:
        """True if the network has batch statistics that depend on the shared parameters."""
        return STATISTICS in self._state and not self._freeze

    def forward(self, shared: Mapping[str, Any], image: PyTree) -> dict[str, PyTree]:
        """Outputs in evaluation mode, but with the batch statistics of the images; pure."""
        with frozen_statistics() if self._freeze else cumulative_statistics(0):
            variables = self.variables(shared)
            return self._model.apply(variables, image, train=False, mutable=[STATISTICS])[0]

    def _statistics(self, variables: Variables, image: PyTree, batches: jax.Array) -> PyTree:
        with cumulative_statistics(batches):
            _, new = self._model.apply(variables, image, train=False, mutable=[STATISTICS])
        return new[STATISTICS]


def _joined(parts: Sequence[PyTree], template: PyTree) -> PyTree:
    """Collection of the multi-task network: variables of a head from its run, the rest averaged."""
    leaves = [flatten(part) for part in parts]

    def value(path: str) -> Any:
        values = [part[path] for part in leaves if path in part]
        if not values:
            raise ValueError(f"the runs have no variable {path} of the multi-task network")
        return values[0] if task_of(path) is not None else np.mean(values, axis=0)

    return unflatten({path: value(path) for path in flatten(template)})
