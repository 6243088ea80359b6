"""The documentation site."""

import html.parser
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from support import browser, public_names

ROOT = Path(__file__).parents[2]


def test_no_page_has_the_name_of_one_that_sphinx_writes():
    assert not {"genindex", "search"} & {path.stem for path in (ROOT / "docs").glob("*.md")}


class Page(html.parser.HTMLParser):
    """The links of a page, what can be linked to in it, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.links, self.ids, self.loaded = [], set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found.get("id"), found.get("name")}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in ("script", "img", "link", "iframe"):
            self.loaded.append(found.get("src") or found.get("href") or "")


@pytest.fixture(scope="module")
def site(site_folder):
    """The site as {path: Page}."""
    return {path: Page(path) for path in site_folder.rglob("*.html")}


@pytest.mark.slow
def test_every_link_within_the_site_leads_somewhere(site):
    broken = []
    for path, page in site.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if parts.scheme or not link:
                continue
            anchors = site[target].ids | {""} if target in site else {parts.fragment}
            if not target.exists() or parts.fragment not in anchors:
                broken.append(f"{path.name}: {link}")
    assert not broken


@pytest.mark.slow
def test_every_public_name_is_on_a_page_of_the_api(site):
    ids = {x for page in site.values() for x in page.ids}
    names = [name for name, documented in public_names.own_names().items() if documented]
    assert not [name for name in names if not {name, f"module-{name}"} & ids]


@pytest.mark.slow
def test_the_site_needs_no_network(site):
    loaded = {link for page in site.values() for link in page.loaded}
    assert not [link for link in loaded if urlsplit(link).netloc]


@pytest.mark.slow
@browser.needs_browser
def test_the_search_works_from_a_folder_and_finds_the_pages_of_a_method(site, tmp_path):
    (page,) = (path for path in site if path.name == "search.html")
    settings = "virtual-time-budget=60000", "dump-dom"
    for query, place in (
        ("nash_mtl", "methods/balancers/equal_or_fair_gains.html"),
        ("Gramian", "concepts/jacobian_and_gramian.html"),
        ("onnx", "tutorials/deployment.html"),
    ):
        dom, _ = browser.browse(f"{page.as_uri()}?q={query}", tmp_path, *settings)
        found = re.findall(r'<li class="kind-\w+"><a href="([^"]+)"', dom)
        assert any(link.startswith(place) for link in found), (query, found)
