"""Tables of a comparison: for the terminal, and as CSV, Markdown and LaTeX."""

import csv
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from rich.markup import escape

from mtljax.comparison.conclusions import format_percent
from mtljax.comparison.outcome import Comparison, ComparisonRow
from mtljax.comparison.statistics import UNKNOWN, Estimate
from mtljax.tasks import MetricSpec
from mtljax.utils.fitting_table import FittingTable
from mtljax.utils.text import count, number


class Column(NamedTuple):
    """Column of numbers, one per row of the comparison."""

    header: str
    """Heading of the column."""
    better: str
    """Arrow in the direction of better values, or empty."""
    key: str
    """Name of the column in CSV."""
    value: Callable[[ComparisonRow], Estimate]
    """Value of a row."""
    text: Callable[[ComparisonRow], str]
    """Value of a row as text."""

    def csv_value(self, row: ComparisonRow) -> str:
        """Returns the mean with full precision, empty if it is unknown."""
        return _csv_number(self.value(row).mean)


def result_columns(comparison: Comparison) -> list[Column]:
    """Columns of the results, which depend on the runs only: test metrics, delta_m and MR."""
    delta_m = partial(format_delta_m, comparison)
    samples = comparison.folds or len(comparison.seeds)
    rank_text = lambda row: "" if np.isnan(row.mean_rank) else f"{row.mean_rank:.2f}"
    rank = lambda row: Estimate(row.mean_rank, float("nan"), samples)
    return [
        *(_metric_column(comparison, k) for k in range(len(comparison.metrics))),
        Column("Δm %", "↑", "delta_m", lambda row: row.improvement, delta_m),
        Column("MR", "↓", "mean_rank", rank, rank_text),
    ]


def _metric_column(comparison: Comparison, k: int) -> Column:
    metric = comparison.metrics[k]
    return Column(
        f"{metric.task} {metric.name.replace('_', ' ')}",
        "↑" if metric.higher_is_better else "↓",
        f"{metric.task}/{metric.name}",
        lambda row: row.metric(k),
        lambda row: format_estimate(comparison.spec(metric), row.metric(k)),
    )


def _cost_column(header: str, better: str, key: str, scale: float, form: str) -> Column:
    value = lambda row: {**row.costs, **row.telemetry}.get(key, UNKNOWN)

    def text(row: ComparisonRow) -> str:
        mean = value(row).mean
        return "n/a" if np.isnan(mean) else format(scale * mean, form)

    return Column(header, better, key, value, text)


COST_COLUMNS = (
    _cost_column("ms per step", "↓", "ms_per_step", 1, ".3g"),
    _cost_column("memory, MiB", "↓", "memory_bytes", 2**-20, ".0f"),
    _cost_column("compile time, s", "↓", "compile_seconds", 1, ".1f"),
    _cost_column("parameters", "↓", "parameters", 1, ",.0f"),
    _cost_column("conflicting pairs, %", "", "conflicting", 100, ".0f"),
)
"""Columns of the costs, which vary from run to run, and of the gradient conflicts."""


def format_estimate(spec: MetricSpec, value: Estimate) -> str:
    """Formats the mean of a metric and the half width of its interval."""
    if np.isnan(value.mean):
        return "n/a"
    if spec.percent:
        half_width = "" if np.isnan(value.half_width) else f" ± {100 * value.half_width:.2f}"
        return f"{100 * value.mean:.2f}{half_width} %"
    if np.isnan(value.half_width) or value.half_width == 0:
        return number(value.mean, 4)
    digits = max(0, 1 - int(np.floor(np.log10(value.half_width))))
    return f"{value.mean:.{digits}f} ± {value.half_width:.{digits}f}"


def format_delta_m(comparison: Comparison, row: ComparisonRow) -> str:
    """Formats delta_m without its unit, %."""
    if row.name == comparison.reference.name:
        return "reference"
    return format_percent(row.improvement).removesuffix(" %")


def to_terminal(comparison: Comparison) -> Iterator[FittingTable]:
    """Yields the tables of results and costs for the terminal."""
    name, place = comparison.experiment.name, "test folds" if comparison.folds else "test split"
    results = f"{name}: {place}, mean ± half width of the 95 % interval, {comparison.samples}"
    if comparison.tuning is not None:
        results += f", tuned by {count(comparison.tuning.trials, 'trial')} each"
    tables = {results: result_columns(comparison), "cost and gradient conflicts": COST_COLUMNS}
    for title, columns in tables.items():
        table = FittingTable(title=title, keep=("method", "Δm % ↑", "MR ↓"))
        table.add_texts("method")
        for column in columns:
            table.add_numbers(f"{column.header} {column.better}".strip())
        for group in _by_kind(comparison):
            for row in group:
                table.add_row(escape(_label(row)), *(column.text(row) for column in columns))
            table.add_section()
        yield table


def _by_kind(comparison: Comparison) -> Iterator[Iterator[ComparisonRow]]:
    return (rows for _, rows in itertools.groupby(comparison.rows, lambda row: row.kind))


def _label(row: ComparisonRow) -> str:
    return f"{row.name} ({row.settings})" if row.settings else row.name


def to_csv(comparison: Comparison, columns: Sequence[Column]) -> str:
    """Returns CSV with a line per row: mean, ends of the interval and number of seeds or folds."""
    text, samples = io.StringIO(), f"/{comparison.unit}s"
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{c.key}{end}" for c in columns for end in ("", "/low", "/high", samples)]
    writer.writerow(["method", "kind", "settings", *names])
    for row in comparison.rows:
        numbers: list[object] = []
        for value in (column.value(row) for column in columns):
            numbers += [*map(_csv_number, (value.mean, value.low, value.high)), value.seeds]
        writer.writerow([row.name, row.kind, row.settings, *numbers])
    return text.getvalue()


def folds_to_csv(comparison: Comparison) -> str:
    """Returns CSV with a line per row and fold: test metrics and delta_m."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{metric.task}/{metric.name}" for metric in comparison.metrics]
    writer.writerow(["method", "kind", "fold", *names, "delta_m"])
    for row in comparison.rows:
        for fold, values in enumerate(np.column_stack([row.values, row.delta_m]), 1):
            writer.writerow([row.name, row.kind, fold, *map(_csv_number, values)])
    return text.getvalue()


def _csv_number(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))


def to_markdown(comparison: Comparison) -> str:
    """Returns the results as a table in GitHub-flavored Markdown."""
    columns = result_columns(comparison)
    lines = [
        "| method | " + " | ".join(f"{c.header} {c.better}" for c in columns) + " |",
        "|---" + "|---:" * len(columns) + "|",
    ]
    for row in comparison.rows:
        cells = [_label(row), *(column.text(row) for column in columns)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "Δ": r"$\Delta$",
    "²": r"$^2$",
}
"""Character -> its escaped form in LaTeX."""


def to_latex(comparison: Comparison) -> str:
    """Returns the results as a LaTeX tabular (package booktabs), the best method in bold."""
    columns = result_columns(comparison)
    head = ["method", *(f"{c.header} {c.better}" for c in columns)]
    lines = [
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        "\\toprule",
        " & ".join(map(escape_latex, head)) + r" \\",
    ]
    best = [_best_method(comparison, column) for column in columns]
    for group in _by_kind(comparison):
        lines.append("\\midrule")
        for row in group:
            cells = [escape_latex(_label(row))]
            for column, best_row in zip(columns, best, strict=True):
                text = escape_latex(column.text(row))
                cells.append(rf"\textbf{{{text}}}" if row is best_row else text)
            lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def escape_latex(text: str) -> str:
    """Escapes the special characters of LaTeX."""
    return "".join(LATEX.get(c, c) for c in text)


def _best_method(comparison: Comparison, column: Column) -> ComparisonRow | None:
    """Method with the best mean."""
    sign = 1.0 if column.better == "↑" else -1.0
    known = [row for row in comparison.rows_of("method") if not np.isnan(column.value(row).mean)]
    return max(known, key=lambda row: sign * column.value(row).mean, default=None)
