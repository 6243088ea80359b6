"""The report of a run: what is on the page and in the pictures, for ordinary and for odd runs."""

import base64
import dataclasses
import re

import numpy as np
import pytest
from PIL import Image
from support import browser
from support.report import Page, is_drawn, make_run, write

from mtljax.runs.records import TrainRecord
from mtljax.tasks import Classification, Regression

HOSTILE = "</title><script>alert('x_1')</script> $\\frac{ & \"quoted\""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write(folder, make_run())
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _coarse(monkeypatch):
    """Pictures of odd runs need not be fine, which saves a fifth of the time."""
    monkeypatch.setattr("mtljax.report.figures._DPI", 60)


def with_result(run, **changes):
    """A copy of a run with a changed result."""
    return run | {"result": dataclasses.replace(run["result"], **changes)}


def test_page_holds_all_that_it_shows(folder, page):
    text = (folder / "report.html").read_text(encoding="utf-8")
    for tag, attrs in page.tags:
        for name in ("src", "href", "srcset", "action"):
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, attrs)
    without_images = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|url\(|@import|<script", without_images)


def test_every_image_is_drawn_and_has_its_words(page):
    images = page.all("img")
    assert len(images) == 10
    for image in images:
        assert is_drawn(base64.b64decode(image["src"].removeprefix("data:image/png;base64,")))
        assert len(image["alt"]) > 15
        assert int(image["width"]) > 0
        assert int(image["height"]) > 0


def test_plots_are_files_too(folder):
    names = {path.stem for path in (folder / "plots").iterdir()}
    assert names == {
        *("loss_digit", "loss_value", "test_digit", "test_value", "worst_digit", "worst_value"),
        *("weights", "gradient_norm", "throughput", "random_test_images", "overview"),
    }
    assert all(is_drawn(path.read_bytes()) for path in (folder / "plots").iterdir())
    with Image.open(folder / "plots" / "overview.png") as overview:
        width, height = overview.size
    assert 1300 < width < 1500
    assert height < width


def test_table_has_every_scalar_metric_and_no_matrix(page):
    for shown in ("98.77 %", "0.8765", "0.1234", "0.2345", "0.3456", "0.4567", "0.5678"):
        assert page.cells.count(shown) == 2, shown
    assert not any("confusion" in cell for cell in page.cells)


def test_numbers_stand_beside_what_needs_no_network(page):
    assert [cell for cell in page.cells if cell in ("12.34 %", "2.3", "2.5")] == [
        *("12.34 %", "2.3", "2.5")
    ]
    assert "98.8 % for digit (60 labels). Constant-predictor baseline: 12.3 %." in page.text
    assert "No better than" not in page.text


def test_a_network_that_learned_nothing_is_told_so(tmp_path):
    run = make_run()
    run["result"].test["digit"]["accuracy"] = 0.1234
    run["result"].test["value"]["mae"] = 2.6
    remark = "No better than the constant-predictor baseline: digit and value."
    assert remark in Page(write(tmp_path, run)).text
    unknown = with_result(run, constant_predictor={})
    assert "No better than" not in Page(write(tmp_path, unknown)).text


def test_headline_says_what_came_out(page):
    assert (
        "On 60 test images: accuracy 98.8 % for digit and mean absolute error 0.346 for value. "
        "Parameters of step 80 of 120, selected on validation." in page.text
    )


def test_page_can_be_walked_by_keyboard_and_outline(page):
    assert [tag for tag, _ in page.tags if tag in ("h1", "h2")] == ["h1"] + 6 * ["h2"]
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= ids
    assert all("tabindex" in attrs for attrs in page.all("div") if attrs.get("class") == "scroll")
    assert page.all("html") == [{"lang": "en"}]
    assert "width=device-width" in page.all("meta")[1]["content"]


def test_configuration_and_environment_are_shown(page):
    assert "data. batch_size 64" in page.text
    assert "3.11.2" in page.text


def test_hostile_names_stay_words(tmp_path):
    plain = HOSTILE.translate({ord("/"): None, ord("\\"): None})  # no name may contain these
    names = plain, "..\\.._etc $x"
    run = make_run(names=names, channels=3)
    run["experiment"] = dataclasses.replace(run["experiment"], name=plain, balancer=HOSTILE)
    page = Page(write(tmp_path, run))
    assert not page.all("script")
    assert HOSTILE in " ".join(page.words)
    assert all(name in page.cells for name in names)
    assert {path.parent for path in tmp_path.rglob("*.png")} == {tmp_path / "plots"}


def test_history_of_one_line_and_no_weights(tmp_path):
    page = Page(write(tmp_path, make_run(lines=1, weights=False)))
    assert "training loss 2 at the only logged step" in str(page.all("img"))
    assert "uw computes a direction" in page.text
    assert "longer training may help" in page.text.split("Results")[0]


def test_agreement_of_gradients_is_a_heat_map_over_time(tmp_path):
    run = make_run()
    telemetry = {"cosine": [[1.0, -0.5], [-0.5, 1.0]], "conflicting": 1.0}
    every_other = [r.step for r in run["history"] if isinstance(r, TrainRecord)][::2]
    run["history"] = [
        dataclasses.replace(record, telemetry=telemetry)
        if isinstance(record, TrainRecord) and record.step in every_other
        else record
        for record in run["history"]
    ]
    page = Page(write(tmp_path, run))
    title = f"The tasks' gradients conflicted in 100 % of {len(every_other)} measurements"
    assert title in [image["alt"] for image in page.all("img")]
    assert is_drawn((tmp_path / "plots" / "agreement.png").read_bytes())


def test_no_history_and_no_images(tmp_path):
    run = make_run(size=0)
    run["history"] = []
    page = Page(write(tmp_path, run))
    assert not page.all("img")
    assert "No test image has a label of digit and value." in page.text


def test_not_a_number_everywhere_is_said_and_not_drawn(tmp_path):
    run = make_run()
    nan = dict.fromkeys(("digit", "value"), float("nan"))
    run["history"] = [
        dataclasses.replace(record, loss=nan, weight=nan)
        for record in run["history"]
        if isinstance(record, TrainRecord)
    ]
    nothing = {"loss": float("nan"), "accuracy": float("nan"), "mae": float("nan")}
    run = with_result(run, test={"digit": nothing, "value": nothing}, skipped=7)
    for output in run["test"].outputs.values():
        output[:] = np.nan
    page = Page(write(tmp_path, run))
    assert "accuracy not measured for digit" in page.text
    assert "n/a" in page.cells
    assert "not finite: 7 updates of 120" in page.text
    assert "test_value" not in {path.stem for path in (tmp_path / "plots").iterdir()}


def test_missing_labels_are_left_out_of_pictures(tmp_path):
    run = make_run()
    run["test"].present["value"][:] = False
    run["test"].labels["value"][:] = np.nan
    run["test"].present["digit"][::2] = False
    run["test"].labels["digit"][::2] = -1
    page = Page(write(tmp_path, run))
    assert "No test image has a label of value." in page.text
    assert "30 test images" in str(page.all("img"))
    names = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert {"worst_value", "test_value"}.isdisjoint(names)
    assert "worst_digit" in names


def test_many_tasks_are_ranked_and_the_worst_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("mtljax.report.run._MOST_SECTIONS", 2)
    run = make_run()
    names = [f"task_{i:02d}" for i in range(40)]
    tasks = tuple(Regression(name=name) for name in names)
    run["experiment"] = dataclasses.replace(run["experiment"], tasks=tasks)
    truth = run["test"].labels["value"]
    size = len(truth)
    run["test"] = run["test"]._replace(
        outputs={name: truth + i for i, name in enumerate(names)},
        labels=dict.fromkeys(names, truth),
        present={name: np.ones(size, bool) for name in names},
    )
    measured = {name: {"loss": 1.0, "mae": float(i)} for i, name in enumerate(names)}
    run = with_result(run, validation=measured, test=measured)
    run["history"] = [
        dataclasses.replace(
            record,
            step=s,
            loss=dict.fromkeys(names, 1 / s),
            weight=dict.fromkeys(names, 1.0 * s),
        )
        for s, record in enumerate(run["history"][:2], 1)
    ]
    page = Page(write(tmp_path, run))
    assert "mean absolute error of 40 tasks between 0 (task_00) and 39 (task_39)" in page.text
    stems = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert {"ranking_mae", "worst_task_39", "worst_task_38"} <= stems
    assert "worst_task_37" not in stems
    assert "2 of 40 tasks" in page.text
    assert all(name in page.cells for name in names)


def test_errors_are_counted_over_the_entire_split(tmp_path):
    run = make_run()
    confusion = np.full((10, 10), 10)
    run["result"].test["digit"]["confusion"] = confusion.tolist()
    run["test"] = run["test"]._replace(split_size=7949, split_labels={"digit": 1000, "value": 7949})
    page = Page(write(tmp_path, run))
    assert "On 7,949 test images:" in page.text
    assert "98.8 % for digit (1,000 labels)" in page.text
    assert "pictures are of a random sample of 60." in page.text
    titles = [image["alt"] for image in page.all("img")]
    assert any("digit: 900 of 1000 test images in a wrong class" in title for title in titles)
    assert any("with the largest errors" in t and "of a sample of 60" in t for t in titles)


def test_confusions_of_many_classes_are_listed(tmp_path):
    run = make_run()
    names = tuple(f"breed {i}" for i in range(70))
    digit = Classification(name="digit", num_classes=70, class_names=names)
    run["experiment"] = dataclasses.replace(
        run["experiment"], tasks=(digit, run["experiment"].tasks[1])
    )
    confusion = np.eye(70, dtype=int) * 30
    confusion[3, 60] = 12
    run["result"].test["digit"]["confusion"] = confusion.tolist()
    run["test"].outputs["digit"] = np.eye(70)[run["test"].labels["digit"]]
    page = Page(write(tmp_path, run))
    start = page.cells.index("breed 3")
    assert page.cells[start : start + 4] == ["breed 3", "breed 60", "12", "29 %"]


@browser.needs_browser
def test_opens_in_a_browser_without_network_or_complaint(folder, tmp_path):
    shot = tmp_path / "shot.png"
    flags = "window-size=390,800", f"screenshot={shot}"
    _, log = browser.browse((folder / "report.html").as_uri(), tmp_path, *flags)
    assert "CONSOLE" not in log, log
    assert is_drawn(shot.read_bytes())
