"""Figures of a search."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from mtljax.comparison.statistics import estimate
from mtljax.report.figures import BLUE, GRAY, INK, ORANGE, Plot, existing, make_plot, shorten
from mtljax.searching.conclusions import format_score
from mtljax.searching.outcome import DEFAULT, SearchOutcome
from mtljax.tuning.records import TrialRecord
from mtljax.tuning.space import Number
from mtljax.tuning.trials import best_trials
from mtljax.utils.text import count, number

_ROW = 0.4


def search_plots(outcome: SearchOutcome) -> list[Plot]:
    """Returns the history of the trials, the settings, the parameters and their importances."""
    parameters = (plot_parameter(outcome, i) for i in range(len(outcome.space.distributions)))
    return existing(
        plot_history(outcome), plot_settings(outcome), plot_importances(outcome), *parameters
    )


def plot_history(outcome: SearchOutcome) -> Plot | None:
    """Score of each trial, and the best so far."""

    def draw(axis: Axes) -> str | None:
        best = best_trials(outcome.trials, 1)
        if not best:
            return None
        _draw_trials(axis, outcome.trials, lambda trial: trial.number + 1)
        failed = [trial.number + 1 for trial in outcome.trials if trial.state == "failed"]
        if failed:
            top = [axis.get_ylim()[1]] * len(failed)
            axis.plot(failed, top, "x", color=ORANGE, clip_on=False, label="failed")
        scores = [trial.rank_score for trial in outcome.trials]
        so_far = np.minimum.accumulate(scores)
        so_far[np.isinf(so_far)] = np.nan
        axis.step(np.arange(len(scores)) + 1, so_far, where="post", color=INK, lw=1.2, label="best")
        axis.set_xlabel("trial")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        return (
            f"Best of {count(len(scores), 'trial')}: trial {best[0].number + 1}, score "
            f"{number(best[0].score, 4)}"
        )

    return make_plot("history", draw, width=6.4, margins=None)


def plot_settings(outcome: SearchOutcome) -> Plot | None:
    """Validation scores of the settings that were trained with all seeds."""
    settings = [setting for setting in outcome.settings if not math.isinf(setting.score)]

    def draw(axis: Axes) -> str | None:
        if not settings:
            return None
        ordered = sorted(settings, key=lambda setting: -setting.score)
        for y, setting in enumerate(ordered):
            value = estimate(setting.validation)
            error = None if np.isnan(value.half_width) else value.half_width
            color = INK if setting is outcome.default else BLUE
            axis.errorbar(value.mean, y, None, error, "o", color=color, ms=5, capsize=4, lw=1.8)
            seeds = np.full(len(setting.validation), y - 0.24)
            axis.plot(setting.validation, seeds, "o", ms=2.8, color=INK, alpha=0.55)
        axis.set_yticks(range(len(ordered)), [shorten(s.name or DEFAULT, 40) for s in ordered])
        axis.set_xlabel("score on validation (left is better)")
        best = outcome.best
        return f"Best mean score: {best.name or DEFAULT}, {format_score(best)}"

    height = 0.9 + _ROW * len(settings)
    return make_plot("settings", draw, width=7.2, height=height, margins=None)


def plot_importances(outcome: SearchOutcome) -> Plot | None:
    """Fraction of the variance of the scores by parameter."""
    pairs = sorted(outcome.importances.items(), key=lambda pair: pair[1])

    def draw(axis: Axes) -> str | None:
        if len(pairs) < 2:
            return None
        for y, (_, share) in enumerate(pairs):
            axis.barh(y, 100 * share, 0.62, color=BLUE, alpha=0.5, lw=0)
        axis.set_yticks(range(len(pairs)), [shorten(name, 40) for name, _ in pairs])
        axis.set_xlabel("importance, %")
        return f"Most important: {pairs[-1][0]}"

    height = 0.9 + _ROW * len(pairs)
    return make_plot("importance", draw, width=6.4, height=height, margins=None)


def plot_parameter(outcome: SearchOutcome, index: int) -> Plot | None:
    """Score against one parameter."""
    distribution = outcome.space.distributions[index]
    name = distribution.name
    trials = [trial for trial in outcome.trials if name in trial.parameters]
    options = [] if isinstance(distribution, Number) else list(distribution.options)

    def place(trial: TrialRecord) -> float:
        value = trial.parameters[name]
        if not options:
            return float(value)
        return options.index(value) + 0.3 * math.sin(12.9898 * (trial.number + 1))  # spread

    def draw(axis: Axes) -> str | None:
        best = best_trials(trials, 1)
        if not best:
            return None
        _draw_trials(axis, trials, place)
        if options:
            length = 4 + 48 // len(options)
            axis.set_xticks(range(len(options)), [shorten(text, length) for text in options])
            axis.set_xlim(-0.5, len(options) - 0.5)
        elif isinstance(distribution, Number) and distribution.kind == "loguniform":
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel(name)
        value = best[0].parameters[name]
        return f"Best {name}: {value if options else number(value, 4)}"

    return make_plot(f"parameter_{index}", draw, margins=None)


def _draw_trials(
    axis: Axes, trials: Sequence[TrialRecord], place: Callable[[TrialRecord], float]
) -> None:
    """Draws the scores of complete trials and the last ones of those that were ended early."""
    complete = [trial for trial in trials if trial.state == "complete"]
    pruned = [trial for trial in trials if trial.state == "pruned" and trial.scores]
    scores = [trial.score for trial in complete if trial.score is not None]
    ended = [min(trial.scores.values()) for trial in pruned]
    # Trials that diverged would hide the differences between the others.
    low, high = min(scores + ended), min(max(scores + ended), 2 * max(scores) - min(scores))
    margin = 0.08 * (high - low) or 0.1
    axis.set_ylim(low - margin, high + margin)
    for is_above, marker in ((False, "o"), (True, "^")):
        shown = [
            (place(t), y) for t, y in zip(pruned, ended, strict=True) if (y > high) == is_above
        ]
        x, y = np.array(shown).reshape(-1, 2).T
        label = "ended early, above" if is_above else "ended early"
        if len(x):
            y = np.minimum(y, high + margin)
            axis.plot(x, y, marker, ms=4, color=GRAY, mfc="none", clip_on=False, label=label)
    axis.plot([place(t) for t in complete], scores, "o", ms=5, color=BLUE, label="complete")
    axis.set_ylabel("score (lower is better)")
