"""Page of a search."""

from collections.abc import Sequence
from pathlib import Path

from mtljax.comparison.members import Failure
from mtljax.report.figures import figure_style
from mtljax.report.page import settings_text, write_plotted_page
from mtljax.searching.conclusions import conclusions, headers, rows
from mtljax.searching.figures import search_plots
from mtljax.searching.outcome import DEFAULT, SearchOutcome
from mtljax.tuning.trials import SEED_OFFSET
from mtljax.utils.text import count, number

_CAPTIONS = {
    "history": "Filled: best score on validation of a complete trial. Open: last score of a trial "
    "that was ended early; triangles are above the range.",
    "settings": "Validation. Large markers: mean over seeds with its 95 % confidence interval; "
    "dots: seeds. Black: the default setting.",
    "importance": "Fraction of the variance of the scores that a parameter explains (PED-ANOVA).",
    "parameter": "Each point is a trial: filled if it is complete, open if it was ended early.",
}


def write_page(workdir: Path, outcome: SearchOutcome, failures: Sequence[Failure]) -> None:
    """Writes the self-contained page `report.html`, and `plots/*.png`, to an existing folder."""
    with figure_style():
        plots = search_plots(outcome)
    write_plotted_page(
        workdir,
        "mtljax.searching",
        "search.html.jinja",
        plots,
        _CAPTIONS,
        title=outcome.experiment.name,
        subtitle=f"search of settings, {count(len(outcome.trials), 'trial')}",
        conclusions=conclusions(outcome),
        failures=failures,
        outcome=outcome,
        default=DEFAULT,
        headers=headers(outcome),
        rows=rows(outcome),
        number=number,
        trial_seed=outcome.experiment.seed + SEED_OFFSET,
        settings=settings_text(outcome.best.candidate.experiment),
    )
