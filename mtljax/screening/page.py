"""The page of a screening: pictures of what was found, in one file that opens offline."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtljax.config import Experiment
from mtljax.data.base import Source
from mtljax.data.pool import ExampleId
from mtljax.report.page import template
from mtljax.screening.appearance import as_bytes
from mtljax.screening.findings import ERRORS, KINDS, Finding, by_kind
from mtljax.utils.files import write_text

SHOWN = 48
"""Most examples of a kind that are shown."""
SAMPLE = 200
"""Images that black and white are taken from."""
LARGEST = 192
"""Most pixels of a picture's side."""


def write_page(
    path: Path, experiment: Experiment, source: Source, findings: Sequence[Finding]
) -> None:
    """Writes the page."""
    scale = _scale(source)
    parts = [
        {
            "kind": kind,
            "meaning": KINDS[kind],
            "count": len(found),
            "tiles": [_tile(finding, source, scale) for finding in found[:SHOWN]],
        }
        for kind, found in by_kind(findings)
    ]
    title = experiment.name
    page = template("screening.html.jinja", "mtljax.screening").render(
        title=title, headline=headline(findings, source), parts=parts
    )
    write_text(path, page)


def headline(findings: Sequence[Finding], source: Source) -> str:
    """What was found, in one sentence."""
    count = sum(map(len, source.splits().values()))
    places = {finding.place for finding in findings}
    errors = {finding.place for finding in findings if finding.kind in ERRORS}
    if not places:
        return f"Nothing suspicious in {count} examples."
    return (
        f"{len(places)} of {count} examples are suspicious; {len(errors)} of them are errors, "
        "which no data should have."
    )


def _scale(source: Source) -> tuple[float, float]:
    """What is shown black and white: what usual images have as their least and largest value, since
    arrays in files need not go from the source's black to its white."""
    ends = []
    for row in range(min(len(source.train), SAMPLE)):
        try:
            image = np.asarray(source.train[row]["image"])
        except Exception:  # whatever a source's reader raises
            continue
        if np.isfinite(image).all() and image.dtype != np.uint8:
            ends.append((float(image.min()), float(image.max())))
    low, high = np.median(ends, 0) if ends else (source.low, source.high)
    return (float(low), float(high)) if high > low else (source.low, source.high)


def _tile(finding: Finding, source: Source, scale: tuple[float, float]) -> dict[str, Any]:
    places = [finding.place, *([finding.like] if finding.like else [])]
    pictures = [(place, _uri(place, source, scale)) for place in places]
    return {
        "place": str(finding.place),
        "like": finding.like and str(finding.like),
        "detail": finding.detail,
        "pictures": [{"name": str(place), "uri": uri} for place, uri in pictures if uri],
    }


def _uri(place: ExampleId, source: Source, scale: tuple[float, float]) -> str | None:
    """The image as a data URI; None if it cannot be read."""
    from PIL import Image

    try:
        example = source.splits()[place.split][place.row]
    except Exception:  # whatever a source's reader raises
        return None
    image = Image.fromarray(as_bytes(example["image"], *scale))
    image.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
