"""Page of Pareto fronts."""

from collections.abc import Sequence
from pathlib import Path

from mtljax.comparison.members import Failure
from mtljax.pareto import table
from mtljax.pareto.conclusions import conclusions
from mtljax.pareto.figures import front_plots
from mtljax.pareto.outcome import FrontOutcome
from mtljax.report.figures import figure_style
from mtljax.report.page import settings_text, write_plotted_page
from mtljax.utils.text import count

_CAPTIONS = {
    "front": "Test split. Large markers: mean over seeds of a ray; dots: seeds. The line joins the "
    "rays that no other ray of the front dominates. Dashed lines: single-task networks.",
    "hypervolume": "Large markers: mean over seeds with its 95 % confidence interval; dots: seeds.",
}


def write_page(workdir: Path, outcome: FrontOutcome, failures: Sequence[Failure]) -> None:
    """Writes the self-contained page `report.html`, and `plots/*.png`, to an existing folder."""
    with figure_style():
        plots = front_plots(outcome)
    write_plotted_page(
        workdir,
        "mtljax.pareto",
        "front.html.jinja",
        plots,
        _CAPTIONS,
        title=outcome.experiment.name,
        subtitle=count(len(outcome.methods), "Pareto front"),
        conclusions=conclusions(outcome),
        failures=failures,
        outcome=outcome,
        headers=table.HEADERS,
        volumes=table.volume_rows(outcome),
        points=table.point_rows(outcome),
        settings=settings_text(outcome.experiment),
    )
