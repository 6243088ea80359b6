"""Page of a comparison."""

from collections.abc import Sequence
from pathlib import Path

from mtljax.comparison import table
from mtljax.comparison.conclusions import conclusions
from mtljax.comparison.figures import comparison_plots
from mtljax.comparison.members import Failure
from mtljax.comparison.outcome import Comparison
from mtljax.report.figures import figure_style
from mtljax.report.page import settings_text, write_plotted_page
from mtljax.utils.text import count

_CAPTIONS = {
    "delta_m": "Bars: mean over {unit}s with its 95 % confidence interval. Dots: {unit}s. If the "
    "interval contains 0, the effect of multi-task learning is not significant.",
    "tasks": "Small markers: {unit}s; large markers: their mean. Dashed lines: single-task "
    "networks.",
    "cost": "Up is better, left is cheaper; with the 95 % confidence interval over {unit}s.",
    "tests": "{test} over {unit}s, p values adjusted by Holm's method. Blue: the method of "
    "the row is better; red: it is worse; bold: significant.",
    "conflict": "Measured at intervals on training batches, with respect to the shared "
    "parameters; with the 95 % confidence interval over {unit}s.",
    "metric": "Test {place}. Large markers: mean over {unit}s with its 95 % confidence interval; "
    "dots: {unit}s.",
}


def write_page(workdir: Path, comparison: Comparison, failures: Sequence[Failure]) -> None:
    """Writes the self-contained page `report.html`, and `plots/*.png`, to an existing folder."""
    with figure_style():
        plots = comparison_plots(comparison)
    words = {
        "unit": comparison.unit,
        "place": "folds" if comparison.folds else "split",
        "test": "Corrected resampled t tests" if comparison.folds else "Paired t tests",
    }
    write_plotted_page(
        workdir,
        "mtljax.comparison",
        "comparison.html.jinja",
        plots,
        {name: text.format_map(words) for name, text in _CAPTIONS.items()},
        title=comparison.experiment.name,
        subtitle=f"{count(len(comparison.rows_of('method')), 'method')} compared",
        conclusions=conclusions(comparison),
        failures=failures,
        columns=table.result_columns(comparison),
        cost_columns=table.COST_COLUMNS,
        rows=comparison.rows,
        has_grid=any(row.settings for row in comparison.rows),
        tuning=comparison.tuning,
        seeds_per_program=comparison.seeds_per_program,
        seeds=comparison.seeds,
        folds=comparison.folds,
        unit=comparison.unit,
        settings=settings_text(comparison.experiment),
        environment=comparison.environment,
    )
