"""The page of a comparison: what it holds, and what a browser makes of it."""

import base64
import json
import re

import numpy as np
import pytest
from support import browser
from support.comparison import EXPERIMENT, write_results
from support.report import Page, is_drawn

from mtljax.comparison.compare import write
from mtljax.comparison.members import Failure
from mtljax.comparison.results import collect

HOSTILE = '</script><b>it\'s & "broken"</b>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, chance = tmp_path_factory.mktemp("comparison"), np.random.default_rng(0)
    near = lambda *row: [
        tuple(np.array(row) * (1 + 0.05 * chance.normal(size=3))) for _ in range(3)
    ]
    values = {"STL": near(0.8, 2, 4), "ew": near(0.7, 1.5, 3), "uw": near(0.9, 2.5, 5)}
    values |= {"pcgrad": near(0.6, 1, 2)}
    methods = write_results(folder, values, balancers=("ew", "uw", "pcgrad"))
    found = collect(EXPERIMENT, methods, range(3), folder)
    write(found, [Failure("uw, seed 9", HOSTILE)], folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_holds_all_that_it_shows(folder, page):
    text = (folder / "report.html").read_text(encoding="utf-8")
    for tag, attrs in page.tags:
        for name in ("src", "href", "srcset", "action"):
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, attrs)
    without_images = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp", without_images)


def test_every_picture_is_drawn_and_says_what_it_shows(folder, page):
    images = page.all("img")
    assert len(images) == 8  # delta_m, tasks, cost, tests, conflict, three metrics
    for image in images:
        assert is_drawn(base64.b64decode(image["src"].removeprefix("data:image/png;base64,")))
        assert len(image["alt"]) > 15
    assert len(list((folder / "plots").iterdir())) == len(images)


def test_conclusions_are_words_at_the_top(page):
    top = page.text.split("Results")[0]
    assert "Holm's method for 6 comparisons" in top
    assert HOSTILE in " ".join(page.words)
    assert not page.all("b")


def test_the_page_can_be_walked_by_keyboard_and_outline(page):
    assert [tag for tag, _ in page.tags if tag in ("h1", "h2")] == ["h1"] + 4 * ["h2"]
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= ids
    assert all("tabindex" in a for a in page.all("div") if a.get("class", "").startswith("scroll"))
    assert len(page.all("button")) == 6 + 6  # every heading of both tables sorts
    assert "width=device-width" in page.all("meta")[1]["content"]


SCRIPT = """<script>
const table = document.getElementById("results-table"), found = {};
const order = () => [...table.tBodies[0].rows].map(row => row.cells[0].innerText.split("\\n")[0]);
const press = i => table.tHead.rows[0].cells[i].firstElementChild.click();
found.before = order();
press(1); found.accuracy = order(); found.sorted = table.tHead.rows[0].cells[1].ariaSort;
press(1); found.turned = order();
press(2); found.mae = order(); found.cleared = table.tHead.rows[0].cells[1].ariaSort;
press(0); found.again = order();
addEventListener("load", () => {
  found.images = [...document.images].map(image => image.naturalWidth);
  found.wide = document.documentElement.scrollWidth > innerWidth;
  const out = document.createElement("pre");
  out.id = "found"; out.textContent = JSON.stringify(found); document.body.append(out);
});
</script></body>"""


def browse(page, tmp_path, *flags):
    """What the browser prints; fails if the page complains."""
    printed, log = browser.browse(page.as_uri(), tmp_path, *flags)
    assert "CONSOLE" not in log, log
    return printed


@browser.needs_browser
def test_a_browser_sorts_and_shows_every_image_without_network_or_complaint(folder, tmp_path):
    copy = tmp_path / "page.html"
    text = (folder / "report.html").read_text(encoding="utf-8")
    copy.write_text(text.replace("</body>", SCRIPT), encoding="utf-8")
    dom = browse(copy, tmp_path, "window-size=500,900", "dump-dom")
    found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', dom, re.S)[1])
    names = ["STL", "ew", "uw", "pcgrad"]
    assert found["before"] == found["again"] == names
    lines = (folder / "results.csv").read_text().splitlines()
    cells = {line.split(",", 1)[0].strip('"'): line for line in lines[1:]}
    assert len(cells) >= 4
    assert found["turned"] == found["accuracy"][::-1]
    assert found["accuracy"][-1] == "pcgrad"
    assert found["accuracy"].index("uw") < found["accuracy"].index("STL")
    assert found["mae"][-1] == "uw"
    assert (found["sorted"], found["cleared"]) == ("descending", "none")
    assert len(found["images"]) == 8
    assert min(found["images"]) > 300
    assert not found["wide"]  # on a phone, only tables scroll sideways


@browser.needs_browser
@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_a_browser_draws_it_in_the_light_and_in_the_dark(folder, tmp_path, scheme):
    shot = tmp_path / "shot.png"
    flags = f"blink-settings=preferredColorScheme={scheme}", "window-size=1200,900"
    browse(folder / "report.html", tmp_path, *flags, f"screenshot={shot}")
    from PIL import Image

    with Image.open(shot) as image:
        corner = image.convert("L").getpixel((3, 3))
    assert is_drawn(shot.read_bytes())
    assert (corner < 60) == (scheme == 0)
