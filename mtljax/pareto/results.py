"""Collection of the results of a front's networks into its outcome."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mtljax.comparison import results as comparison_results
from mtljax.comparison.outcome import Comparison
from mtljax.comparison.statistics import Metric
from mtljax.config import Experiment
from mtljax.evaluation.preferences import evaluate_at_preferences
from mtljax.pareto.outcome import Front, FrontOutcome
from mtljax.pareto.plan import FrontPlan, PlannedFront
from mtljax.runs.folder import read_result
from mtljax.runs.load import load_run
from mtljax.tasks.metric import SplitMetrics
from mtljax.utils.bounded_reading import read_json
from mtljax.utils.files import nan_for_null, write_json

POINTS = "points.json"
"""File in the folder of a conditioned run with its test metrics at each ray."""


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
    return FrontOutcome(
        experiment=experiment,
        metrics=metrics,
        seeds=tuple(seeds),
        single=comparison.reference.values[:, indices],
        constant=_constant(plan, seeds, workdir, metrics),
        fronts=tuple(_front(front, comparison, indices, workdir) for front in plan.fronts),
        environment=comparison.environment,
    )


def _front(
    planned: PlannedFront, comparison: Comparison, indices: Sequence[int], workdir: Path
) -> Front:
    names = {row.name: row for row in comparison.rows}
    rows = [names[method.name] for method in planned.methods]
    values = np.stack([row.values[:, indices] for row in rows], axis=1)
    if planned.is_conditioned:
        metrics = [comparison.metrics[k] for k in indices]
        values = conditioned_values(planned, comparison.seeds, workdir, metrics)
    steps = [method.candidates[0].experiment.steps for method in planned.methods]
    milliseconds = [row.costs["ms_per_step"].mean for row in rows]
    return Front(
        name=planned.name,
        is_linear=planned.is_linear,
        rays=planned.rays,
        values=values,
        steps=steps[0],
        networks=len(rows),
        seconds=float(np.dot(milliseconds, steps)) / 1e3,
        parameters=float(sum(row.costs["parameters"].mean for row in rows)),
        settings=tuple(row.settings for row in rows) if any(row.settings for row in rows) else (),
    )


def conditioned_values(
    planned: PlannedFront, seeds: Sequence[int], workdir: Path, metrics: Sequence[Metric]
) -> Float[np.ndarray, "S R T"]:
    """Test metrics of conditioned networks at each ray, stored in the run folders."""
    values = np.full((len(seeds), len(planned.rays), len(metrics)), np.nan)
    for s, seed in enumerate(seeds):
        folder = planned.methods[0].candidates[0].folder(workdir, seed)
        if read_result(folder) is None:
            continue
        for r, found in enumerate(_evaluated(folder, planned)):
            values[s, r] = [found[metric.task].get(metric.name, np.nan) for metric in metrics]
    return values


def _evaluated(folder: Path, planned: PlannedFront) -> Sequence[SplitMetrics]:
    """Evaluates a run at the rays on the test split, unless it was evaluated before."""
    file, rays = folder / POINTS, planned.rays.tolist()
    if file.is_file():
        known = nan_for_null(read_json(file))
        if known.get("rays") == rays:
            return known["test"]
    tasks = planned.methods[0].candidates[0].experiment.tasks  # they may be those of a notebook
    test = evaluate_at_preferences(load_run(folder, tasks=tasks), rays)
    write_json(file, {"rays": rays, "test": test})
    return test


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
