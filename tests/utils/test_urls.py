"""URLs are told from folders, and copies are named by them."""

from pathlib import Path

import pytest

from mtljax.utils.urls import named, register_copy, require_local, url_of


@pytest.mark.parametrize(
    "url", ["s3://bucket/run", "gs://b/runs/digits.1", "memory://a/b", "file:///tmp/run"]
)
def test_a_url_survives_being_a_path(url):
    assert url_of(url) == url_of(Path(url)) == url
    with pytest.raises(ValueError, match=f"{url} is a URL, not a folder"):
        require_local(Path(url))


@pytest.mark.parametrize(
    "text", ["runs/digits", "/tmp/s3://x", "package:NAME/weights.pth", "C:/runs", "s3:", "a:b/c"]
)
def test_other_paths_are_no_urls(text):
    assert url_of(text) is None
    require_local(Path(text))


def test_only_the_copy_itself_is_named_by_its_url(tmp_path):
    folder = tmp_path / "run"
    register_copy(folder, "s3://bucket/run")
    assert named(f"report: {folder}/report.html") == "report: s3://bucket/run/report.html"
    assert named(f"{folder}, and '{folder}'; {folder}") == (
        "s3://bucket/run, and 's3://bucket/run'; s3://bucket/run"
    )
    for other in (f"{folder}-2", f"{folder}s", str(tmp_path)):
        assert named(f"kept in {other}") == f"kept in {other}"
