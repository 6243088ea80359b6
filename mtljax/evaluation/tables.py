"""Tables of metrics for the terminal."""

from collections.abc import Mapping

from rich.markup import escape

from mtljax.evaluation.calibration import Calibration
from mtljax.evaluation.evaluator import scalar_metrics
from mtljax.runs.result import RunResult
from mtljax.tasks.metric import SplitMetrics
from mtljax.utils.fitting_table import FittingTable


def result_table(result: RunResult) -> FittingTable:
    """Metrics of a run on validation and test, and of the constant-predictor baseline on test."""
    table = FittingTable(
        title=f"{result.experiment}: {_origin(result)}",
        keep=("task", "metric", "test"),
        caption="constant: best constant prediction on the training labels, evaluated on test",
    )
    columns = {"validation": result.validation, "test": result.test}
    columns["constant"] = result.constant_predictor
    return _add_metrics(table, result.test, columns)


def _origin(result: RunResult) -> str:
    if result.merged is not None:
        return result.selection
    return f"step {result.best_step}, chosen on validation{result.condition}"


def metrics_table(title: str, metrics: SplitMetrics, **attacked: SplitMetrics) -> FittingTable:
    """Metrics of a run on one split, and under attacks on the losses that the keywords name."""
    table = FittingTable(title=title, keep=("task", "metric", "value"))
    columns = {f"{target} attacked": values for target, values in attacked.items()}
    return _add_metrics(table, metrics, {"value": metrics, **columns})


def _add_metrics(
    table: FittingTable, rows: SplitMetrics, columns: dict[str, SplitMetrics]
) -> FittingTable:
    """Adds one row per task and metric of `rows`, with the values of each column."""
    table.add_texts("task")
    table.add_texts("metric")
    for column in columns:
        table.add_numbers(column, style="dim" if column == "constant" else "")
    for task, metrics in rows.items():
        names = list(scalar_metrics(metrics))
        for i, name in enumerate(names):
            values = (metrics.get(task, {}).get(name) for metrics in columns.values())
            cells = ("" if value is None else f"{value:z.4f}" for value in values)
            table.add_row("" if i else escape(task), name, *cells, end_section=i == len(names) - 1)
    return table


def calibration_table(found: Mapping[str, Calibration], split: str) -> FittingTable:
    """Temperatures of tasks and the expected calibration error before and after them."""
    table = FittingTable(title="calibration of probabilities", keep=("task", "temperature"))
    table.add_texts("task")
    for name in ("temperature", "validation error", *[f"{split} error"] * bool(split)):
        table.add_numbers(name)
    for task, calibration in found.items():
        pairs = [(calibration.before, calibration.after), calibration.held_out]
        errors = [f"{a.ece:.4f} -> {b.ece:.4f}" for a, b in filter(None, pairs)]
        errors += [""] * (len(table.columns) - 2 - len(errors))
        table.add_row(escape(task), f"{calibration.temperature:.3f}", *errors)
    return table
