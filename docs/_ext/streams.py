"""Text that cells print, joined as it was printed: myst-nb starts a new line for each piece."""

from typing import Any

from myst_nb.core import render
from myst_nb.core.utils import coalesce_streams
from sphinx.application import Sphinx


def join_pieces(outputs: list[Any]) -> list[Any]:
    """Returns the outputs with one for all pieces of a stream, at the place of the first piece."""
    joined: list[Any] = []
    streams: dict[str, Any] = {}
    for output in outputs:
        if output["output_type"] == "stream" and output["name"] in streams:
            streams[output["name"]]["text"] += output["text"]
        else:
            joined.append(output)
            if output["output_type"] == "stream":
                streams[output["name"]] = output
    return joined


def setup(app: Sphinx) -> dict[str, Any]:
    """Joins the pieces before myst-nb does."""
    render.coalesce_streams = lambda outputs: coalesce_streams(join_pieces(outputs))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
