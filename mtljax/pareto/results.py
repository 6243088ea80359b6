"""Collection of the results of a front's networks into its outcome."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mtljax.comparison import results as comparison_results
from mtljax.comparison.outcome import Comparison
from mtljax.comparison.statistics import Metric
from mtljax.config import Experiment
from mtljax.pareto.outcome import Front, FrontOutcome
from mtljax.pareto.plan import FrontPlan, PlannedFront
from mtljax.runs.folder import read_result


def collect(
    experiment: Experiment, plan: FrontPlan, seeds: Sequence[int], workdir: Path
) -> FrontOutcome:
    """Reads the results of all networks; validation chooses checkpoints and settings.

    Raises:
      ValueError: A result is damaged.
    """
    comparison = comparison_results.collect(experiment, plan.methods, seeds, workdir)
    columns: dict[str, int] = {}
    for k, metric in enumerate(comparison.metrics):
        columns.setdefault(metric.task, k)  # the main metric is the first
    indices = list(columns.values())
    metrics = tuple(comparison.metrics[k] for k in indices)
    steps = [front.methods[0].candidates[0].experiment.steps for front in plan.fronts]
    return FrontOutcome(
        experiment=experiment,
        metrics=metrics,
        seeds=tuple(seeds),
        single=comparison.reference.values[:, indices],
        constant=_constant(plan, seeds, workdir, metrics),
        fronts=tuple(_front(front, comparison, indices) for front in plan.fronts),
        steps=steps[0],
        linear_steps=steps[-1],
        environment=comparison.environment,
    )


def _front(planned: PlannedFront, comparison: Comparison, indices: Sequence[int]) -> Front:
    names = {row.name: row for row in comparison.rows}
    rows = [names[method.name] for method in planned.methods]
    steps = [method.candidates[0].experiment.steps for method in planned.methods]
    milliseconds = [row.costs["ms_per_step"].mean for row in rows]
    return Front(
        name=planned.name,
        is_linear=planned.is_linear,
        rays=planned.rays,
        values=np.stack([row.values[:, indices] for row in rows], axis=1),
        seconds=float(np.dot(milliseconds, steps)) / 1e3,
        parameters=float(sum(row.costs["parameters"].mean for row in rows)),
        settings=tuple(row.settings for row in rows) if any(row.settings for row in rows) else (),
    )


def _constant(
    plan: FrontPlan, seeds: Sequence[int], workdir: Path, metrics: Sequence[Metric]
) -> Float[np.ndarray, " T"]:
    """Test metrics of the constant-predictor baseline, the same in all runs of all tasks."""
    methods = [method for front in plan.fronts for method in front.methods]
    for method in methods:
        for candidate in method.candidates:
            for seed in seeds:
                result = read_result(candidate.folder(workdir, seed))
                if result is not None:
                    known = result.constant_predictor
                    values = [known.get(m.task, {}).get(m.name, np.nan) for m in metrics]
                    return np.array(values, float)
    return np.full(len(metrics), np.nan)
