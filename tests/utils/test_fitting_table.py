"""Tables that fit narrow terminals without losing a digit or a letter."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from mtljax.cli.tables import survey_table
from mtljax.data.statistics import LabelStatistics
from mtljax.evaluation.tables import metrics_table
from mtljax.tasks import Regression
from mtljax.utils.fitting_table import FittingTable


def printed(table, width):
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return lines


def text(lines, column):
    """The folded texts of a column, joined."""
    cells = [re.split("[┃│]", line)[column + 1].strip() for line in lines if line[:1] in "┃│"]
    return "".join(cells)


LONG = "distance_to_the_nearest_pedestrian_in_metres"
NUMBERS = {"a accuracy ↑": "97.20 ± 0.35 %", "b rmse ↓": "1.2345", f"{LONG} ↓": "3.1 ± 0.2"}


def table_of(keep):
    table = FittingTable(title="results [95 %]", keep=keep)
    table.add_texts("method")
    for name in NUMBERS:
        table.add_numbers(name)
    table.add_row("cagrad:c=0.4, or another long name", *NUMBERS.values())
    return table


@pytest.mark.parametrize("width", [100, 80, 60, 40])
@pytest.mark.parametrize("keep", [("method",), ("method", f"{LONG} ↓")])
def test_columns_are_left_out_from_the_right_and_named(width, keep):
    lines = printed(table_of(keep), width)
    body = "\n".join(lines)
    assert "results [95 %]" in body
    assert text(lines, 0).replace(" ", "").endswith("cagrad:c=0.4,oranotherlongname")
    shown = [name for name, number in NUMBERS.items() if number in body]
    left_out = [name for name in NUMBERS if name not in shown]
    note = " ".join(body.partition("not shown, for lack of width: ")[2].split())
    assert note.replace(" ", "") == ", ".join(left_out).replace(" ", "")
    droppable = [name for name in NUMBERS if name not in keep]
    assert [name for name in droppable if name in shown] == droppable[: len(shown) - len(keep) + 1]
    assert set(keep) - {"method"} <= set(shown)
    if width == 100:
        assert not left_out


def test_a_wide_terminal_shows_every_column_on_lines_of_its_own_width():
    assert "not shown" not in "\n".join(printed(table_of(("method",)), 200))


@pytest.mark.parametrize("width", [80, 60])
def test_metrics_of_a_run_under_several_attacks_fit(width):
    metrics = {LONG: {"mean_absolute_relative_error": 0.12345}, "b": {"r2": 0.5}}
    attacked = dict.fromkeys((LONG, "b", "all tasks together"), metrics)
    lines = printed(metrics_table("run [1] at step 10", metrics, **attacked), width)
    assert "0.1235" in "\n".join(lines)
    assert LONG in text(lines, 0)
    assert "mean_absolute_relative_error" in text(lines, 1)


@pytest.mark.parametrize("width", [80, 60])
def test_the_survey_of_long_names_fits(width):
    task = Regression(name=LONG, center=0.0, scale=1.0)
    statistics = LabelStatistics()
    for value in range(8):
        statistics.add(np.float32([value]))
    lines = printed(survey_table([task], {"train": {LONG: statistics}}), width)
    assert "8" in "\n".join(lines)
