"""HTML page of a screening: images of the findings in one self-contained file."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtljax.config import Experiment
from mtljax.data.base import Source, place_of
from mtljax.data.pool import ExampleId
from mtljax.report.page import load_template
from mtljax.screening.appearance import to_pil
from mtljax.screening.findings import ERRORS, KINDS, NOTES, Finding, Screening, by_kind
from mtljax.utils.files import write_text

MAX_SHOWN = 48
"""Maximum number of findings shown per kind."""
SAMPLE = 200
"""Number of images from which the values of black and white are estimated."""
MAX_SIDE = 192
"""Maximum side of a picture in pixels."""


def write_page(path: Path, experiment: Experiment, source: Source, screening: Screening) -> None:
    """Writes the page."""
    findings = screening.findings
    value_range = _value_range(source)
    parts = [
        {
            "kind": kind,
            "meaning": KINDS[kind],
            "count": len(of_kind),
            "tiles": [_tile(finding, source, value_range) for finding in of_kind[:MAX_SHOWN]],
        }
        for kind, of_kind in by_kind(findings)
    ]
    page = load_template("screening.html.jinja", "mtljax.screening").render(
        title=experiment.name,
        headline=headline(findings, source),
        remarks=screening.remarks,
        parts=parts,
    )
    write_text(path, page)


def headline(findings: Sequence[Finding], source: Source) -> str:
    """Summary of the findings in one sentence."""
    count = sum(map(len, source.splits().values()))
    places = {finding.place for finding in findings if finding.kind not in NOTES}
    errors = {finding.place for finding in findings if finding.kind in ERRORS}
    if not places:
        return f"No findings in {count} examples."
    return f"{len(places)} of {count} examples are suspicious; {len(errors)} of them have errors."


def _value_range(source: Source) -> tuple[float, float]:
    """Estimates the values shown as black and white as the median minimum and maximum of images.

    Float arrays in files need not span the source's range.
    """
    ranges = []
    for row in range(min(len(source.train), SAMPLE)):
        try:
            image = np.asarray(source.train[row]["image"])
        except Exception:  # sources may raise any exception
            continue
        if np.isfinite(image).all() and image.dtype != np.uint8:
            ranges.append((float(image.min()), float(image.max())))
    low, high = np.median(ranges, 0) if ranges else (source.low, source.high)
    return (float(low), float(high)) if high > low else (source.low, source.high)


def _tile(finding: Finding, source: Source, value_range: tuple[float, float]) -> dict[str, object]:
    places = [finding.place, *([finding.like] if finding.like else [])]
    pictures = [(place, _data_uri(place, source, value_range)) for place in places]
    return {
        "place": _name(finding.place, source),
        "like": finding.like and _name(finding.like, source),
        "detail": finding.detail.removeprefix(f"{_file(finding.place, source)}: "),
        "pictures": [{"name": str(place), "uri": uri} for place, uri in pictures if uri],
    }


def _name(place: ExampleId, source: Source) -> str:
    """Returns the split and row of an example, and its file if it is known."""
    file = _file(place, source)
    return f"{place} · {file}" if file else str(place)


def _file(place: ExampleId, source: Source) -> str:
    return place_of(source.splits()[place.split], place.row)


def _data_uri(place: ExampleId, source: Source, value_range: tuple[float, float]) -> str | None:
    """The image as a data URI, or None if it cannot be read."""
    try:
        example = source.splits()[place.split][place.row]
    except Exception:  # sources may raise any exception
        return None
    image = to_pil(example["image"], *value_range)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
