"""Tables of Pareto fronts: for the terminal and the page, and as CSV."""

import csv
import io
from typing import NamedTuple

import numpy as np
from rich.markup import escape

from mtljax.comparison.statistics import Estimate
from mtljax.comparison.table import format_estimate
from mtljax.pareto.conclusions import format_volume
from mtljax.pareto.outcome import FrontOutcome
from mtljax.utils.fitting_table import FittingTable
from mtljax.utils.text import number

HEADERS = (
    "front",
    "hypervolume ↑",
    "minus linear",
    "p",
    "not dominated",
    "networks",
    "steps each",
    "training, s",
    "parameters",
)
"""Headings of the table of hypervolumes."""


class VolumeRow(NamedTuple):
    """Row of the table of hypervolumes, as text."""

    name: str
    """Front."""
    volume: str
    """Hypervolume with its interval."""
    difference: str
    """Hypervolume minus that of linear scalarization."""
    p: str
    """p value of this difference, after Holm's correction."""
    optimal: str
    """Number of rays whose networks no other network dominates."""
    networks: str
    """Number of networks."""
    steps: str
    """Steps of each network."""
    seconds: str
    """Training time in seconds."""
    parameters: str
    """Number of parameters of all networks together."""


class PointRow(NamedTuple):
    """Row of the table of rays, as text."""

    front: str
    """Front."""
    ray: str
    """Preference over tasks."""
    metrics: tuple[str, ...]
    """Test metric of each task, with its interval."""
    dominated: str
    """`dominated`, or empty for a Pareto-optimal point."""
    settings: str
    """Setting chosen on validation; empty without a grid."""


def volume_rows(outcome: FrontOutcome) -> list[VolumeRow]:
    """Returns a row per front."""
    p = outcome.p_values()
    rows = []
    for front in outcome.fronts:
        difference = outcome.difference(front)
        rows.append(
            VolumeRow(
                front.name,
                format_volume(outcome.volume(front)),
                "reference" if front.is_linear else format_volume(difference, "+"),
                "" if front.is_linear else number(p[front.name], 2),
                f"{outcome.optimal(front).sum()} of {len(front.rays)}",
                str(front.networks),
                f"{front.steps:,}",
                number(front.seconds),
                number(front.parameters, 1),
            )
        )
    return rows


def point_rows(outcome: FrontOutcome) -> list[PointRow]:
    """Returns a row per front and ray."""
    rows = []
    for front in outcome.fronts:
        optimal = outcome.optimal(front)
        for r, ray in enumerate(front.rays):
            metrics = tuple(
                format_estimate(outcome.spec(metric), front.point(r, k))
                for k, metric in enumerate(outcome.metrics)
            )
            settings = front.settings[r] if front.settings else ""
            text = ", ".join(f"{w:.2f}" for w in ray / ray.sum())
            rows.append(
                PointRow(front.name, text, metrics, "" if optimal[r] else "dominated", settings)
            )
    return rows


def to_terminal(outcome: FrontOutcome) -> FittingTable:
    """Returns the table of hypervolumes for the terminal."""
    seeds = f"{len(outcome.seeds)} seeds" if len(outcome.seeds) > 1 else "1 seed"
    title = f"{outcome.experiment.name}: test split, mean ± 95 % interval, {seeds}"
    table = FittingTable(title=title, keep=("front", "hypervolume ↑"))
    table.add_texts(HEADERS[0])
    for header in HEADERS[1:]:
        table.add_numbers(header)
    for row in volume_rows(outcome):
        table.add_row(escape(row.name), *row[1:])
    return table


def volumes_to_csv(outcome: FrontOutcome) -> str:
    """Returns CSV with a line per front: hypervolume, difference, p value, time, parameters."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    of = lambda name: (name, *(f"{name}/{end}" for end in ("low", "high", "seeds")))
    cost = ("rays", "networks", "steps", "seconds", "parameters")
    writer.writerow(["front", *of("hypervolume"), *of("minus_linear"), "adjusted_p", *cost])
    p = outcome.p_values()
    for front in outcome.fronts:
        difference = outcome.difference(front)
        values = [*_numbers(outcome.volume(front)), *_numbers(difference)]
        costs = [front.networks, front.steps, _number(front.seconds), _number(front.parameters)]
        writer.writerow(
            [front.name, *values, _number(p.get(front.name, np.nan)), len(front.rays), *costs]
        )
    return text.getvalue()


def points_to_csv(outcome: FrontOutcome) -> str:
    """Returns CSV with a line per front and ray: preference and test metrics."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{metric.task}/{metric.name}" for metric in outcome.metrics]
    ends = ("", "/low", "/high", "/seeds")
    weights = [f"preference/{metric.task}" for metric in outcome.metrics]
    metrics = [f"{name}{end}" for name in names for end in ends]
    writer.writerow(["front", "ray", *weights, "settings", "dominated", *metrics])
    for front in outcome.fronts:
        optimal = outcome.optimal(front)
        for r, ray in enumerate(front.rays):
            points = [x for k in range(len(names)) for x in _numbers(front.point(r, k))]
            settings = front.settings[r] if front.settings else ""
            start = [front.name, r, *map(_number, ray), settings, int(not optimal[r])]
            writer.writerow([*start, *points])
    return text.getvalue()


def _numbers(value: Estimate) -> list[object]:
    return [*map(_number, (value.mean, value.low, value.high)), value.seeds]


def _number(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))
