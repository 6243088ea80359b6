"""Text that cells of the site print."""

import sys

import pytest
from support import site_pages


def test_pieces_of_a_stream_are_joined_without_new_lines(monkeypatch):
    pytest.importorskip("myst_nb")
    monkeypatch.syspath_prepend(str(site_pages.DOCS / "_ext"))
    monkeypatch.delitem(sys.modules, "streams", raising=False)
    from streams import join_pieces

    piece = lambda name, text: {"output_type": "stream", "name": name, "text": text}
    picture = {"output_type": "display_data", "data": {}}
    outputs = [piece("stdout", "ab"), piece("stderr", "x"), picture, piece("stdout", "c\n")]
    assert join_pieces(outputs) == [piece("stdout", "abc\n"), piece("stderr", "x"), picture]
