"""Conclusions on Pareto fronts as sentences."""

import numpy as np

from mtljax.comparison.conclusions import format_p
from mtljax.comparison.statistics import ALPHA, Estimate
from mtljax.pareto.outcome import Front, FrontOutcome
from mtljax.utils.text import count, joined, number


def conclusions(outcome: FrontOutcome) -> list[str]:
    """Returns the conclusions, the most important first."""
    if np.isnan(outcome.single).all(0).any() or np.isnan(outcome.constant).any():
        return ["The single-task baselines were not completed, so the hypervolume is unknown."]
    weak = [
        metric.task
        for k, metric in enumerate(outcome.metrics)
        if np.isnan(outcome.gains(outcome.single)[:, k]).all()
    ]
    if weak:
        return [
            f"The single-task networks of {joined(weak)} are not better than the constant "
            "predictor, so the hypervolume has no unit; train longer."
        ]
    linear = outcome.volume(outcome.linear)
    sentences = [_against_linear(outcome, front) for front in outcome.methods]
    sentences.append(
        f"Linear scalarization dominates {format_volume(linear)}; 1 is the volume of a network "
        "that equals all single-task networks."
    )
    return [*sentences, _against_single(outcome), _tests(outcome)]


def format_volume(value: Estimate, sign: str = "") -> str:
    """Formats a hypervolume: `0.953 ± 0.004`; with the sign of a difference for `sign="+"`."""
    if np.isnan(value.mean):
        return "n/a"
    half_width = "" if np.isnan(value.half_width) else f" ± {value.half_width:.4f}"
    return f"{value.mean:{sign}.4f}{half_width}"


def _against_linear(outcome: FrontOutcome, front: Front) -> str:
    volume, difference = outcome.volume(front), outcome.difference(front)
    name = f"{front.name} with {count(len(front.rays), 'ray')}"
    if np.isnan(volume.mean):
        return f"{name} was not completed by any seed."
    text = f"{name} dominates a hypervolume of {format_volume(volume)}"
    p = outcome.p_values()[front.name]
    if np.isnan(p):
        sign = "more" if difference.mean > 0 else "less"
        return f"{text}, {number(abs(difference.mean))} {sign} than linear scalarization, untested."
    relation = "not significantly different from"
    if p < ALPHA:
        relation = "larger than" if difference.mean > 0 else "smaller than"
    return (
        f"{text}, {relation} that of linear scalarization "
        f"(difference {format_volume(difference, '+')}, {format_p(p)})."
    )


def _against_single(outcome: FrontOutcome) -> str:
    """Sentence on the rays that are worth their network (means over seeds)."""
    optimal, better = [], []
    for front in outcome.fronts:
        total = len(front.rays)
        optimal.append(f"{outcome.optimal(front).sum()} of {total} ({front.name})")
        if number_better := int((outcome.gains(front.means) >= 1).all(1).sum()):
            better.append(f"{number_better} of {total} ({front.name})")
    return (
        f"Rays that no other ray of the front dominates: {joined(optimal)}; at least as good as "
        f"the single-task networks in all tasks: {joined(better) or 'none'} (means over seeds)."
    )


def _tests(outcome: FrontOutcome) -> str:
    if all(np.isnan(p) for p in outcome.p_values().values()):
        return "No tests: one seed gives no variance estimate; train more with --seeds 5."
    seeds = min(outcome.difference(front).seeds for front in outcome.methods)
    return (
        f"Paired t tests over {count(seeds, 'seed')}, p values adjusted by Holm's method for "
        f"{count(len(outcome.methods), 'method')}; 95 % confidence intervals by Student's t. All "
        "rays count: none was chosen by its test metrics."
    )
