"""Conclusions of a search as sentences, and its tables."""

import csv
import io
import math
from collections import Counter

import numpy as np

from mtljax.comparison.conclusions import format_p
from mtljax.comparison.statistics import Estimate, estimate
from mtljax.comparison.table import format_estimate
from mtljax.searching.outcome import DEFAULT, SearchOutcome, Setting
from mtljax.tuning.trials import SEED_OFFSET
from mtljax.utils.fitting_table import FittingTable
from mtljax.utils.text import count, joined, number


def conclusions(outcome: SearchOutcome) -> list[str]:
    """Returns the conclusions, the most important first."""
    best, seeds = outcome.best, count(len(outcome.seeds), "seed")
    if math.isinf(best.score):
        return ["No setting was completed by all seeds, so there is no best one."]
    default = format_score(outcome.default)
    first = (
        f"No setting has a better mean score on validation than the default: {default}, {seeds}."
    )
    if outcome.is_improved:
        first = (
            f"{best.name} has the best mean score on validation: {format_score(best)}, with the "
            f"default setting {default} ({seeds}; lower is better)."
        )
    sentences = [first, *_test(outcome), _trials(outcome)]
    if outcome.importances:
        name, share = max(outcome.importances.items(), key=lambda item: item[1])
        if len(outcome.importances) > 1:
            sentences.append(f"The most important parameter is {name} ({100 * share:.0f} %).")
    return sentences


def format_score(setting: Setting) -> str:
    """Formats the mean validation score and its interval."""
    if math.isinf(setting.score):
        return "n/a"
    return _format(estimate(setting.validation))


def _format(value: Estimate) -> str:
    half_width = "" if np.isnan(value.half_width) else f" ± {number(value.half_width, 2)}"
    return f"{number(value.mean, 4)}{half_width}"


def _test(outcome: SearchOutcome) -> list[str]:
    """Sentence on the test split."""
    parts = []
    for k, metric in enumerate(outcome.metrics):
        spec, values = outcome.spec(metric), outcome.best.test[:, k]
        text = f"{metric.task} {spec.label} {format_estimate(spec, estimate(values))}"
        if outcome.is_improved:
            _, p = outcome.difference(k)
            default = format_estimate(spec, estimate(outcome.default.test[:, k]))
            text += f" (default {default}{'' if math.isnan(p) else f', {format_p(p)}'})"
        parts.append(text)
    return [f"On the test split: {'; '.join(parts)}."] if parts else []


def _trials(outcome: SearchOutcome) -> str:
    states = {"complete": "complete", "pruned": "ended early", "failed": "failed"}
    parts = [f"{n} {text}" for state, text in states.items() if (n := outcome.count(state))]
    text = f"{count(len(outcome.trials), 'trial')}: {joined(parts)}"
    if reasons := Counter(trial.reason for trial in outcome.trials if trial.state == "failed"):
        text += f" ({reasons.most_common(1)[0][0]})"
    seed = outcome.experiment.seed + SEED_OFFSET
    return f"{text}; their seed {seed} is not among those of the results."


def to_terminal(outcome: SearchOutcome) -> FittingTable:
    """Returns the table of the settings that were trained with all seeds."""
    title = f"{outcome.experiment.name}: mean ± half width of the 95 % interval over seeds"
    table = FittingTable(title=title, keep=("setting", "validation ↓"))
    table.add_texts("setting")
    for header in headers(outcome):
        table.add_numbers(header)
    for setting, cells in rows(outcome):
        table.add_row(setting.name or DEFAULT, *cells)
    return table


def headers(outcome: SearchOutcome) -> list[str]:
    """Headers of the columns of `rows`."""
    arrow = {True: "↑", False: "↓"}
    names = [
        f"test {metric.task} {metric.name.replace('_', ' ')} {arrow[metric.higher_is_better]}"
        for metric in outcome.metrics
    ]
    return ["validation ↓", *names]


def rows(outcome: SearchOutcome) -> list[tuple[Setting, list[str]]]:
    """Returns the settings by their mean score, with their cells; empty where test was not read."""
    table = []
    for setting in sorted(outcome.settings, key=lambda setting: setting.score):
        cells = [format_score(setting)]
        is_read = any(setting is s for s in (outcome.best, outcome.default))
        for k, metric in enumerate(outcome.metrics):
            value = estimate(setting.test[:, k])
            cells.append(format_estimate(outcome.spec(metric), value) if is_read else "")
        table.append((setting, cells))
    return table


def trials_to_csv(outcome: SearchOutcome) -> str:
    """Returns CSV with a line per trial."""
    text = io.StringIO()
    names = [distribution.name for distribution in outcome.space.distributions]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "score", "evaluations", "settings", *names, "reason"])
    for trial in outcome.trials:
        score = trial.score if trial.score is not None else min(trial.scores.values(), default="")
        values = [trial.parameters.get(name, "") for name in names]
        row = [trial.number + 1, trial.state, score, len(trial.scores), trial.settings]
        writer.writerow([*row, *values, trial.reason])
    return text.getvalue()
