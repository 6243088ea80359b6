"""Page of Pareto fronts."""

from collections.abc import Sequence
from pathlib import Path

from mtljax.comparison.members import Failure
from mtljax.pareto import table
from mtljax.pareto.conclusions import conclusions
from mtljax.pareto.figures import front_plots
from mtljax.pareto.outcome import FrontOutcome
from mtljax.report.figures import figure_style, write_plots
from mtljax.report.page import load_template, settings_text
from mtljax.utils.files import write_text
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
    page = load_template("front.html.jinja", "mtljax.pareto").render(
        title=outcome.experiment.name,
        subtitle=count(len(outcome.methods), "Pareto front"),
        conclusions=conclusions(outcome),
        failures=failures,
        outcome=outcome,
        headers=table.HEADERS,
        volumes=table.volume_rows(outcome),
        points=table.point_rows(outcome),
        plots=plots,
        caption=lambda plot: _CAPTIONS[plot.name.rstrip("_0123456789")],
        settings=settings_text(outcome.experiment),
    )
    write_plots(workdir, plots)
    write_text(workdir / "report.html", page)
