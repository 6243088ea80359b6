"""The tables of a comparison: on the terminal, as CSV, Markdown and LaTeX."""

import csv
import functools
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from rich.table import Table

from mtljax.comparison.conclusions import percent
from mtljax.comparison.outcome import Comparison, Row
from mtljax.comparison.statistics import Estimate, estimate
from mtljax.tasks import MetricSpec
from mtljax.utils.text import number


class Column(NamedTuple):
    """One number of every row, with what it is called."""

    header: str
    better: str
    """An arrow up or down, or nothing."""
    key: str
    """What it is called in CSV."""
    value: Callable[[Row], Estimate]
    text: Callable[[Row], str]


def result_columns(found: Comparison) -> list[Column]:
    """What was measured, and what follows from it; the same whenever it is computed."""
    columns = []
    for k, metric in enumerate(found.metrics):
        columns.append(
            Column(
                f"{metric.task} {metric.name.replace('_', ' ')}",
                "↑" if metric.higher else "↓",
                f"{metric.task}/{metric.name}",
                functools.partial(_metric, k),
                functools.partial(_metric_text, k, found.spec(metric)),
            )
        )
    delta = lambda row: estimate(row.delta)
    is_reference = lambda row: row.name == found.rows[0].name
    delta_text = lambda row: "reference" if is_reference(row) else percent(delta(row)).rstrip(" %")
    rank = lambda row: Estimate(row.rank, float("nan"), len(found.seeds))
    rank_text = lambda row: "" if np.isnan(row.rank) else f"{row.rank:.2f}"
    return [
        *columns,
        Column("Δm %", "↑", "delta_m", delta, delta_text),
        Column("MR", "↓", "mean_rank", rank, rank_text),
    ]


def _metric(k: int, row: Row) -> Estimate:
    return row.of(k)


def _metric_text(k: int, spec: MetricSpec, row: Row) -> str:
    return with_half(spec, row.of(k))


def cost_columns() -> list[Column]:
    """What it took; such numbers differ from time to time."""

    def column(header: str, key: str, scale: float, form: str) -> Column:
        value = lambda row: row.costs[key]
        text = lambda row: _plain(row.costs[key].mean * scale, form)
        return Column(header, "↓", key, value, text)

    return [
        column("ms a step", "ms_per_step", 1, ".3g"),
        column("memory, MiB", "memory_bytes", 2**-20, ".0f"),
        column("compiled in, s", "compile_seconds", 1, ".1f"),
        column("parameters", "parameters", 1, ",.0f"),
        Column(
            "conflicting pairs, %",
            "",
            "conflicting",
            lambda row: row.telemetry.get("conflicting", Estimate(np.nan, np.nan, 0)),
            lambda row: _plain(
                100 * row.telemetry["conflicting"].mean
                if "conflicting" in row.telemetry
                else np.nan,
                ".0f",
            ),
        ),
    ]


def with_half(spec: MetricSpec, value: Estimate) -> str:
    """A metric's mean and the half width of its interval, an accuracy in percent."""
    if np.isnan(value.mean):
        return "n/a"
    if spec.percent:
        half = "" if np.isnan(value.half) else f" ± {100 * value.half:.2f}"
        return f"{100 * value.mean:.2f}{half} %"
    if np.isnan(value.half) or value.half == 0:
        return number(value.mean, 4)
    digits = max(0, 1 - int(np.floor(np.log10(value.half))))
    return f"{value.mean:.{digits}f} ± {value.half:.{digits}f}"


def _plain(value: float, form: str) -> str:
    return "n/a" if np.isnan(value) else format(value, form)


def to_terminal(found: Comparison) -> list[Table]:
    """For the terminal: what came out, and what it cost."""
    seeds = len(found.seeds)
    title = f"{found.experiment.name}: test split, mean ± half of the 95 % interval, {seeds} seeds"
    return [
        _terminal(title, found.rows, result_columns(found)),
        _terminal("cost, and conflict in training", found.rows, cost_columns()),
    ]


def _terminal(title: str, rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("method", overflow="fold")  # on a narrow terminal nothing is cut off
    for column in columns:
        header = f"{column.header} {column.better}".strip()
        table.add_column(header, justify="right", overflow="fold")
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        ends = after is not None and after.kind != row.kind
        cells = [column.text(row) for column in columns]
        table.add_row(_label(row), *cells, end_section=ends)
    return table


def _label(row: Row) -> str:
    return f"{row.name} ({row.settings})" if row.settings else row.name


def to_csv(found: Comparison, columns: Sequence[Column]) -> str:
    """One line per row; of each number the mean, the ends of its interval and the seeds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{c.key}{end}" for c in columns for end in ("", "/low", "/high", "/seeds")]
    writer.writerow(["method", "kind", "settings", *names])
    for row in found.rows:
        values = [column.value(row) for column in columns]
        numbers = [x for v in values for x in (_cell(v.mean), _cell(v.low), _cell(v.high), v.seeds)]
        writer.writerow([row.name, row.kind, row.settings, *numbers])
    return text.getvalue()


def _cell(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))


def to_markdown(found: Comparison) -> str:
    """The results as a table of GitHub's Markdown."""
    columns = result_columns(found)
    lines = [
        "| method | " + " | ".join(f"{c.header} {c.better}" for c in columns) + " |",
        "|---" + "|---:" * len(columns) + "|",
    ]
    for row in found.rows:
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


def to_latex(found: Comparison) -> str:
    """The results as a LaTeX tabular for the booktabs package, the best method in bold."""
    columns = result_columns(found)
    head = ["method", *(f"{c.header} {c.better}" for c in columns)]
    lines = [
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        "\\toprule",
        " & ".join(map(escape_latex, head)) + r" \\",
    ]
    best = _best(found, columns)
    kind = None
    for i, row in enumerate(found.rows):
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
    """Text as LaTeX would print it."""
    return "".join(LATEX.get(c, c) for c in text)


def _best(found: Comparison, columns: Sequence[Column]) -> dict[int, int]:
    """Column -> the row of the method with the best mean."""
    best = {}
    for c, column in enumerate(columns):
        sign = 1.0 if column.better == "↑" else -1.0
        values = {
            i: sign * column.value(row).mean
            for i, row in enumerate(found.rows)
            if row.kind == "method" and not np.isnan(column.value(row).mean)
        }
        if values:
            best[c] = max(values, key=lambda i: values[i])
    return best
