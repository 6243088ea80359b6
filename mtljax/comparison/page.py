"""The page of a comparison."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtljax.comparison import table
from mtljax.comparison.conclusions import conclusions
from mtljax.comparison.figures import pictures
from mtljax.comparison.outcome import Comparison
from mtljax.comparison.running import Failure
from mtljax.config import to_json
from mtljax.report.figures import Picture, look
from mtljax.report.page import settings_text, template
from mtljax.utils.files import write_text
from mtljax.utils.text import count

_EXPLANATIONS = {
    "delta_m": "Bars: the mean over seeds, with its 95 % interval. Dots: the seeds. An interval "
    "that holds 0 leaves open whether learning together helped.",
    "tasks": "Small: seeds; large: their mean. Dashed: what separate networks reach. A method is "
    "worth its trouble if it is beyond the front of fixed weightings, of which some may lie "
    "outside the picture.",
    "cost": "Better is up, cheaper is left; with the 95 % interval over seeds.",
    "tests": "Paired t tests over seeds, p corrected by Holm's method for their number. Blue: the "
    "row is better; red: worse; bold: beyond chance.",
    "conflict": "Measured at intervals on training batches, with respect to the shared "
    "parameters; with the 95 % interval over seeds.",
    "metric": "On the test split. Large: the mean over seeds with its 95 % interval; dots: seeds.",
}


def write_page(workdir: Path, found: Comparison, failures: Sequence[Failure]) -> None:
    """Writes `workdir/report.html`, which holds all that it shows, and `workdir/plots/*.png`.

    Args:
      workdir: An existing folder.
      found: What came out.
      failures: What could not be trained.
    """
    with look():
        drawn = pictures(found)
    results, costs = table.result_columns(found), table.cost_columns()
    page = template("comparison.html.jinja", "mtljax.comparison").render(
        title=found.experiment.name,
        subtitle=f"{count(len(found.kind('method')), 'method')} compared",
        conclusions=conclusions(found),
        failures=failures,
        columns=results,
        rows=_rows(found, results),
        cost_columns=costs,
        cost_rows=_rows(found, costs),
        has_front=bool(found.kind("front")),
        has_grid=any(row.settings for row in found.rows),
        together=found.together,
        pictures=drawn,
        explain=lambda picture: _EXPLANATIONS[picture.name.rstrip("_0123456789")],
        seeds=found.seeds,
        settings=settings_text(to_json(found.experiment)),
        environment=found.environment,
    )
    write_plots(workdir, drawn)
    write_text(workdir / "report.html", page)


def write_plots(workdir: Path, drawn: Sequence[Picture]) -> None:
    """Writes pictures as files."""
    plots = workdir / "plots"
    plots.mkdir(exist_ok=True)
    for picture in drawn:
        (plots / f"{picture.name}.png").write_bytes(picture.png)


def _rows(found: Comparison, columns: Sequence[table.Column]) -> list[dict[str, Any]]:
    rows = []
    for row in found.rows:
        cells = []
        for column in columns:
            mean = column.value(row).mean
            value = "" if np.isnan(mean) else repr(float(mean))
            cells.append({"text": column.text(row), "value": value})
        rows.append({"name": row.name, "kind": row.kind, "settings": row.settings, "cells": cells})
    return rows
