"""The site and the reports in a browser: axe-core, small screens and the filter.

Needs a Chromium and the extra `browser`.
"""

import itertools

import pytest
from support import browser
from support.cli import SMALL

from mtljax.main import main

pytestmark = [pytest.mark.slow, browser.needs_browser]

PAGES = (
    "index",
    "start/five_minutes",
    "start/reading_a_report",
    "concepts/jacobian_and_gramian",
    "methods/index",
    "balancers",
    "tutorials/digits",
    "tutorials/from_libmtl",
    "gallery/reports",
    "reference/index",
    "reference/command_line/index",
    "benchmarks",
    "searching",
    "search",
)
"""Pages of each kind."""
PHONE, LAPTOP, WIDE = 390, 1280, 1920
"""Widths of a window in pixels."""
LIMIT = 600_000
"""Milliseconds that a step may take: much more than on an idle machine."""
schemes = pytest.mark.parametrize("tab", ["light", "dark"], indirect=True)


@pytest.fixture(scope="module")
def chromium():
    """A browser without a window."""
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser.CHROMIUM)
        yield opened
        opened.close()


@pytest.fixture
def tab(chromium, request):
    """A tab of the browser; the parameter is the color scheme."""
    scheme = getattr(request, "param", "light")
    tab = chromium.new_page(color_scheme=scheme, reduced_motion="reduce")
    tab.set_default_timeout(LIMIT)
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def reports(trained_run, tmp_path_factory):
    """Paths of reports of several kinds."""
    folder = tmp_path_factory.mktemp("reports")
    (folder / "screening").mkdir()
    short = (*SMALL, "--steps", "4", "--log-every", "2", "--eval-every", "2")
    commands = {
        "comparison": ("compare", *short, "--balancers", "ew", "uw", "--seeds", "2"),
        "front": ("front", *short, "--method", "stch", "--rays", "2", "--seeds", "2"),
    }
    for name, command in commands.items():
        assert main([*command, "--workdir", str(folder / name)]) == 0, name
    assert main(["screen", *SMALL, "--output", str(folder / "screening")]) == 0
    return [trained_run / "report.html", *folder.glob("*/report.html")]


def open_page(tab, path, width=LAPTOP):
    tab.set_viewport_size({"width": width, "height": 900})
    tab.goto(path.as_uri())


def serious_findings(tab, pages):
    """Serious findings of axe-core on pages, as lines of text."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = []
    for path, width in itertools.product(pages, (PHONE, WIDE)):
        open_page(tab, path, width)
        for violation in axe.run(tab).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                places = [node["target"] for node in violation["nodes"]]
                found.append(f"{path} at {width}: {violation['id']} of {places}")
    return found


@schemes
def test_representative_pages_have_no_serious_findings_of_axe(site_folder, tab):
    assert not serious_findings(tab, [site_folder / f"{page}.html" for page in PAGES])


@schemes
def test_reports_have_no_serious_findings_of_axe(reports, tab):
    assert not serious_findings(tab, reports)


def test_axe_finds_an_image_without_a_description(tmp_path, tab):
    page = tmp_path / "page.html"
    page.write_text("<html lang=en><title>t</title><h1>h</h1><img src=data:,>")
    (finding,) = serious_findings(tab, [page])[:1]
    assert "image-alt" in finding


def test_every_page_and_report_fits_a_phone_and_has_its_images(site_folder, reports, tab):
    wrong = []
    for path in [*site_folder.rglob("*.html"), *reports]:
        open_page(tab, path, PHONE)
        if tab.evaluate("document.documentElement.scrollWidth") > PHONE:
            wrong.append(f"{path} is too wide")
        if tab.evaluate("[...document.images].some(i => i.complete && !i.naturalWidth)"):
            wrong.append(f"{path} lacks an image")
    assert not wrong


def test_methods_are_filtered_and_sorted_by_keyboard(site_folder, tab):
    open_page(tab, site_folder / "methods" / "balancers.html")
    rows = tab.locator("table.filterable tbody tr")
    everything = rows.count()
    tab.get_by_label("text").focus()
    tab.keyboard.type("Nash bargaining")
    assert [row.split()[0] for row in rows.filter(visible=True).all_inner_texts()] == ["nash_mtl"]
    tab.get_by_label("text").fill("")
    assert rows.filter(visible=True).count() == everything
    tab.get_by_role("button", name="method").focus()
    for sign in (1, -1):
        tab.keyboard.press("Enter")
        names = [row.split()[0] for row in rows.all_inner_texts()]
        assert names[::sign] == sorted(names)
