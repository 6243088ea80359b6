"""Tables of results for the terminal."""

from typing import Any

from rich.table import Table

from mtljax.evaluation.evaluator import scalars


def result_table(result: dict[str, Any]) -> Table:
    """Every number of every task, on validation and test, and what a constant gets on test."""
    table = Table(
        title=f"{result['experiment']}: step {result['best_step']}, chosen on validation",
        title_justify="left",
        caption="trivial: one answer for every image, the best on training labels",
        caption_justify="left",
    )
    table.add_column("task")
    table.add_column("metric")
    table.add_column("validation", justify="right")
    table.add_column("test", justify="right")
    table.add_column("trivial", justify="right", style="dim")
    for task, metrics in result["test"].items():
        trivial = result.get("trivial", {}).get(task, {})
        for i, (name, value) in enumerate(scalars(metrics).items()):
            table.add_row(
                task if i == 0 else "",
                name,
                f"{result['validation'][task][name]:z.4f}",
                f"{value:z.4f}",
                f"{trivial[name]:z.4f}" if name in trivial else "",
                end_section=i == len(scalars(metrics)) - 1,
            )
    return table


def metrics_table(
    title: str, metrics: dict[str, dict[str, Any]], **attacked: dict[str, dict[str, Any]]
) -> Table:
    """Every number of every task on one split, and what remains of it when a loss is attacked."""
    table = Table("task", "metric", title=title, title_justify="left")
    table.add_column("value", justify="right")
    for target in attacked:
        table.add_column(f"{target} attacked", justify="right")
    for task, values in metrics.items():
        numbers = list(scalars(values).items())
        for i, (name, value) in enumerate(numbers):
            under = (f"{found[task][name]:z.4f}" for found in attacked.values())
            last = i == len(numbers) - 1
            table.add_row("" if i else task, name, f"{value:z.4f}", *under, end_section=last)
    return table
