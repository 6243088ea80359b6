"""Tables of a comparison: for the terminal, and as CSV, Markdown and LaTeX."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from rich.table import Table

from mtljax.comparison.conclusions import format_percent
from mtljax.comparison.outcome import Comparison, ComparisonRow
from mtljax.comparison.statistics import UNKNOWN, Estimate, estimate
from mtljax.tasks import MetricSpec
from mtljax.utils.text import number


class Column(NamedTuple):
    """Column of numbers, one per row of the comparison."""

    header: str
    better: str
    """Arrow in the direction of better values, or empty."""
    key: str
    """Name of the column in CSV."""
    value: Callable[[ComparisonRow], Estimate]
    text: Callable[[ComparisonRow], str]

    def csv_value(self, row: ComparisonRow) -> str:
        """Returns the mean with full precision, empty if it is unknown."""
        return _csv_number(self.value(row).mean)


def result_columns(comparison: Comparison) -> list[Column]:
    """Columns of the results, which depend on the runs only: test metrics, delta_m and MR."""
    return [
        *(_metric_column(comparison, k) for k in range(len(comparison.metrics))),
        Column(
            "Δm %",
            "↑",
            "delta_m",
            lambda row: estimate(row.delta_m),
            lambda row: format_delta_m(comparison, row),
        ),
        Column(
            "MR",
            "↓",
            "mean_rank",
            lambda row: Estimate(row.mean_rank, float("nan"), len(comparison.seeds)),
            lambda row: "" if np.isnan(row.mean_rank) else f"{row.mean_rank:.2f}",
        ),
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


def _cost_column(header: str, key: str, scale: float, form: str) -> Column:
    text = lambda row: _format(row.costs[key].mean * scale, form)
    return Column(header, "↓", key, lambda row: row.costs[key], text)


def _conflicting(row: ComparisonRow) -> Estimate:
    return row.telemetry.get("conflicting", UNKNOWN)


COST_COLUMNS = (
    _cost_column("ms per step", "ms_per_step", 1, ".3g"),
    _cost_column("memory, MiB", "memory_bytes", 2**-20, ".0f"),
    _cost_column("compile time, s", "compile_seconds", 1, ".1f"),
    _cost_column("parameters", "parameters", 1, ",.0f"),
    Column(
        "conflicting pairs, %",
        "",
        "conflicting",
        _conflicting,
        lambda row: _format(100 * _conflicting(row).mean, ".0f"),
    ),
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
    return format_percent(estimate(row.delta_m)).removesuffix(" %")


def _format(value: float, form: str) -> str:
    return "n/a" if np.isnan(value) else format(value, form)


def to_terminal(comparison: Comparison) -> list[Table]:
    """Tables of results and costs for the terminal."""
    name, seeds = comparison.experiment.name, len(comparison.seeds)
    title = f"{name}: test split, mean ± half width of the 95 % interval, {seeds} seeds"
    return [
        _terminal_table(title, comparison.rows, result_columns(comparison)),
        _terminal_table("cost and gradient conflicts", comparison.rows, COST_COLUMNS),
    ]


def _terminal_table(title: str, rows: Sequence[ComparisonRow], columns: Sequence[Column]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("method", overflow="fold")  # fold: nothing is cut off on a narrow terminal
    for column in columns:
        header = f"{column.header} {column.better}".strip()
        table.add_column(header, justify="right", overflow="fold")
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        ends = following is not None and following.kind != row.kind
        table.add_row(_label(row), *(column.text(row) for column in columns), end_section=ends)
    return table


def _label(row: ComparisonRow) -> str:
    return f"{row.name} ({row.settings})" if row.settings else row.name


def to_csv(comparison: Comparison, columns: Sequence[Column]) -> str:
    """Returns CSV with a line per row: mean, ends of the interval and number of seeds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{c.key}{end}" for c in columns for end in ("", "/low", "/high", "/seeds")]
    writer.writerow(["method", "kind", "settings", *names])
    for row in comparison.rows:
        values = [column.value(row) for column in columns]
        numbers = [
            x
            for v in values
            for x in (_csv_number(v.mean), _csv_number(v.low), _csv_number(v.high), v.seeds)
        ]
        writer.writerow([row.name, row.kind, row.settings, *numbers])
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


def to_latex(comparison: Comparison) -> str:
    """Returns the results as a LaTeX tabular (package booktabs), the best method in bold."""
    columns = result_columns(comparison)
    head = ["method", *(f"{c.header} {c.better}" for c in columns)]
    lines = [
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        "\\toprule",
        " & ".join(map(escape_latex, head)) + r" \\",
    ]
    best = _best(comparison, columns)
    kind = None
    for i, row in enumerate(comparison.rows):
        if row.kind != kind:
            lines.append("\\midrule")
        kind = row.kind
        cells = [escape_latex(_label(row))]
        for c, column in enumerate(columns):
            text = escape_latex(column.text(row))
            cells.append(rf"\textbf{{{text}}}" if best.get(c) == i else text)
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def escape_latex(text: str) -> str:
    """Escapes the special characters of LaTeX."""
    return "".join(LATEX.get(c, c) for c in text)


def _best(comparison: Comparison, columns: Sequence[Column]) -> dict[int, int]:
    """Index of a column -> index of the method with the best mean."""
    best = {}
    for c, column in enumerate(columns):
        sign = 1.0 if column.better == "↑" else -1.0
        values = {
            i: sign * column.value(row).mean
            for i, row in enumerate(comparison.rows)
            if row.kind == "method" and not np.isnan(column.value(row).mean)
        }
        if values:
            best[c] = max(values, key=lambda i: values[i])
    return best
