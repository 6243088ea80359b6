"""The pieces that the report of a run is made of."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from support.report import make_run

from mtljax.report.curves import describe_weights
from mtljax.report.example_images import (
    captioned_cells,
    label_grid,
    to_rgb,
    triple_cells,
    worst_first,
)
from mtljax.report.history import Series, series
from mtljax.report.image_grid import Caption, GridCell, ImageGrid
from mtljax.report.page import confused_pairs
from mtljax.report.run import file_stems
from mtljax.report.summary import headline, main_results, remarks
from mtljax.runs.records import TrainRecord, ValidationRecord
from mtljax.runs.result import RunResult
from mtljax.tasks import Classification, MultiLabel, Regression, Segmentation
from mtljax.utils.text import joined, number


def test_names_that_differ_in_signs_get_files_of_their_own():
    assert file_stems(["a/b", "A.b", "a_b"]) == ["a_b", "A_b_2", "a_b_3"]


def test_weights_not_worth_a_picture_get_a_sentence():
    run = make_run()
    tasks, history = run["experiment"].tasks, run["history"]
    assert describe_weights(tasks, history, "uw") is None
    constant = [
        dataclasses.replace(record, weight={"digit": 1.0, "value": 0.25})
        for record in history
        if isinstance(record, TrainRecord)
    ]
    shown = "The task weights of uw are constant: digit 1, value 0.25."
    assert describe_weights(tasks, constant, "uw") == shown
    shown = "The task weights of uw were recorded at one step: digit 1, value 0.25."
    assert describe_weights(tasks, constant[:1], "uw") == shown
    history = make_run(weights=False)["history"]
    assert "graddrop computes a direction" in describe_weights(tasks, history, "graddrop")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["bytes", "unit", "any", "constant", "large", "nan"])
def test_images_of_any_kind_become_rgb(kind, channels):
    images = np.random.default_rng(0).uniform(-3, 9, (5, 6, 4, channels))
    images = {
        "bytes": (images * 9).clip(0, 255).astype(np.uint8),
        "unit": images.clip(0, 1),
        "any": images,
        "constant": np.full_like(images, 7.0),
        "large": images.repeat(60, 1).repeat(60, 2),
        "nan": np.where(images > 8, np.nan, images),
    }[kind]
    shown = to_rgb(images, np.array([3, 1]))
    height, width = images.shape[1:3]
    assert [x.shape for x in shown] == 2 * [
        (160, 107, 3) if kind == "large" else (height, width, 3)
    ]
    assert all(x.dtype == np.uint8 for x in shown)
    if kind == "bytes" and channels == 3:
        np.testing.assert_array_equal(shown[0], images[3])
    if kind == "unit" and channels == 1:
        np.testing.assert_allclose(shown[1][..., 2], 255 * images[1, ..., 0], atol=0.5)


def test_worst_come_first_and_not_a_number_before_all():
    run = make_run()
    task, test = run["experiment"].tasks[1], run["test"]
    test.outputs["value"][:] = test.labels["value"]
    test.outputs["value"][[7, 3, 5]] += [2.0, -5.0, np.nan]
    test.outputs["value"][11] += 100.0
    test.present["value"][11] = False
    assert worst_first(task, test, 3).tolist() == [5, 3, 7]


def test_tasks_whose_labels_are_pictures_show_image_truth_and_prediction():
    class Mask(Regression):
        def picture(self, value, image):
            return np.full((*image.shape[:2], 3), 255 * (value > 5), np.uint8)

    run = make_run()
    run["test"].outputs["value"][:2] = [0.0, 9.0]
    run["test"].labels["value"][:2] = [9.0, 9.0]
    cells = triple_cells(Mask(name="value"), run["test"], np.array([0, 1]))
    assert [cell.image.shape for cell in cells] == [(8, 24, 3)] * 2
    assert [cell.image[0, ::8, 0].tolist()[1:] for cell in cells] == [[255, 0], [255, 255]]
    assert triple_cells(run["experiment"].tasks[1], run["test"], np.array([0])) is None


def test_classification_error_is_the_cross_entropy_in_numpy_and_jax():
    logits = np.array([[1000.0, 0.0], [0.0, 2.0]], np.float32)
    labels = np.array([1, 1])
    task = Classification(name="a", num_classes=2)
    expected = [1000.0, np.log1p(np.exp(-2.0))]
    np.testing.assert_allclose(task.error(logits, labels), expected, rtol=1e-6)
    in_jax = task.error(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(in_jax, expected, rtol=1e-6)


def test_series_of_nested_keys_keeps_steps_that_have_them():
    train = TrainRecord(
        step=1,
        epoch=0.1,
        loss={"a": 2.0},
        grad_norm=1.0,
        skipped=0,
        examples_per_second=1.0,
        seconds=1.0,
    )
    history = [train, ValidationRecord(step=2, validation={"a": {"loss": 3.0}}, score=3.0)]
    assert series(history, "loss", "a").steps.tolist() == [1]
    assert series(history, "validation", "a", "loss").values.tolist() == [3.0]
    assert not len(series(history, "loss", "b").steps)


def test_thinning_keeps_the_mean():
    x = np.arange(1003.0)
    thin = Series(x, x**2).downsample(100)
    assert len(thin.steps) == 100
    assert thin.values[-1] == pytest.approx(np.mean(x[-11:] ** 2), rel=0.02)
    assert Series(x, x).downsample(2000).steps is x


def test_captions_wrap_where_one_line_is_too_wide():
    assert Caption("", "3", "8", True).lines(1.0) == ["3 → 8"]
    lines = Caption("", "a golden retriever", "an old labrador", True).lines(1.0)
    assert " ".join(lines) == "a golden retriever → an old labrador"
    assert len(lines) == 4
    name = "cam_a/a_rather_long_file_name_00017.png"
    assert "".join(Caption("", name).lines(1.0)) == name
    assert "…" not in "".join(Caption("a long name of a task", "a label").lines(0.5))


def test_captions_end_after_a_dozen_lines():
    lines = Caption("", " ".join(["word"] * 200)).lines(1.0)
    assert len(lines) == 12
    assert lines[-1].endswith("…")


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("/a/labels.csv row 7 (cam_a/000.png)", "cam_a/000.png"),
        ("/a/labels.csv row 7 (img (1).png)", "img (1).png"),
        ("C:\\data\\train example 7", "train example 7"),
        ("data/train example 3.npy", "train example 3.npy"),
    ],
)
def test_the_worst_images_have_the_names_of_their_files(place, name):
    run = make_run()
    test = run["test"]._replace(places=[place] * 60)
    cells = captioned_cells(
        [run["experiment"].tasks[0]], test, np.array([3]), with_names=False, with_files=True
    )
    assert [caption.label for caption in cells[0].captions][0] == name
    assert len(cells[0].captions) == 2


def test_a_metric_of_one_or_two_tasks_has_no_range():
    tasks = [Classification(name=f"c{i}", num_classes=2) for i in range(6)]
    tasks += [Regression(name="x"), *(Segmentation(name=n, num_classes=2) for n in "mn")]
    metrics = {f"c{i}": {"accuracy": 0.8} for i in range(6)}
    metrics |= {"x": {"mae": 0.893}, "m": {"miou": 0.5}, "n": {"miou": 0.7}}
    assert main_results(tasks, metrics) == (
        "accuracy 80.0 % for each of 6 tasks, mean absolute error 0.893 for x, "
        "mean IoU 0.5 for m and mean IoU 0.7 for n"
    )
    metrics["c0"]["accuracy"] = 0.6
    assert "accuracy of 6 tasks between 60.0 % (c0) and 80.0 % (c1)" in main_results(tasks, metrics)


def axis():
    return Figure(figsize=(4.8, 4.1)).add_subplot()


@pytest.mark.parametrize("count", [3, 20, 43, 60])
def test_confusion_matrices_have_the_complete_name_of_every_class(count):
    names = tuple(f"a class with a name {i}" for i in range(count))
    drawn = axis()
    task = Classification(name="c", num_classes=count, class_names=names)
    confusion = np.eye(count, dtype=int) * 9
    confusion[0, 1] = 4
    title = task.draw_metrics(drawn, {"confusion": confusion.tolist()})
    assert title.startswith(f"c: 4 of {9 * count + 4} test images in a wrong class")
    for labels in (drawn.get_xticklabels(), drawn.get_yticklabels()):
        assert tuple(label.get_text() for label in labels) == names
    # Each name has a line of its own: 7 points, and the axes take most of the figure.
    assert count == 3 or drawn.figure.get_figheight() >= count * 7 / 72 + 1


def test_a_confusion_of_many_classes_is_a_table():
    task = Classification(name="c", num_classes=120)
    confusion = np.eye(120, dtype=int) * 5
    confusion[7, 8], confusion[9, 4] = 3, 5
    assert [tuple(pair) for pair in confused_pairs(task, {"confusion": confusion.tolist()})] == [
        ("9", "4", "5", "50 %"),
        ("7", "8", "3", "38 %"),
    ]
    assert task.draw_metrics(axis(), {"confusion": confusion.tolist()})
    assert confused_pairs(task, {}) == []
    small = Classification(name="c", num_classes=4)
    assert confused_pairs(small, {"confusion": np.ones((4, 4)).tolist()}) == []


def test_iou_is_a_bar_with_a_name_per_class():
    names = ("road", "sidewalk", "wall")
    drawn = axis()
    task = Segmentation(name="m", num_classes=3, class_names=names)
    title = task.draw_metrics(drawn, {"iou": [0.9, 0.25, float("nan")], "miou": 0.575})
    assert title == "m: mean IoU 0.575; lowest sidewalk 0.250, highest road 0.900"
    assert [bar.get_width() for bar in drawn.patches] == [0.9, 0.25, 0]
    assert tuple(label.get_text() for label in drawn.get_yticklabels()) == names
    assert [text.get_text() for text in drawn.texts] == ["0.900", "0.250", "n/a"]
    assert task.draw_metrics(axis(), {}) is None


def test_bars_of_many_classes_are_the_lowest():
    drawn = axis()
    task = MultiLabel(name="m", num_classes=200)
    task.draw_metrics(drawn, {"average_precision": np.linspace(1, 0, 200).tolist()})
    assert len(drawn.patches) == 60
    assert drawn.get_yticklabels()[0].get_text() == "199"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(float("nan"), "n/a"), (None, "n/a"), (12345.6, "12,346"), (0.98765, "0.988"), (0.0, "0")],
)
def test_numbers_in_few_characters(value, shown):
    assert number(value) == shown


def test_words():
    assert Classification(name="y", num_classes=2).metric_spec("accuracy").format(1.0) == "100.0 %"
    assert Regression(name="x").metric_spec("r2").format(-1.5e-6) == "0"
    assert joined(["a"]) == "a"
    assert joined(["a", "b", "c"]) == "a, b and c"
    assert main_results([Regression(name="x")], {}) == "mean absolute error not measured for x"


def test_a_sheet_has_a_row_for_each_truth_and_prediction_and_words_for_the_rest():
    class Mask(Regression):
        def picture(self, value, image):
            return np.full((*image.shape[:2], 3), 255 * (value > 5), np.uint8)

    run = make_run()
    digit, test = run["experiment"].tasks[0], run["test"]
    test.outputs["value"][:2], test.labels["value"][:2] = [0.0, 9.0], [9.0, 9.0]
    test.present["value"][1] = False
    grid = label_grid([digit, Mask(name="value")], test, np.array([0, 1]), 6.0)
    assert grid.row_labels == ["image", "value\nlabel", "prediction"]
    assert grid.columns == 2
    assert [cell.image[0, 0, 0] for cell in grid.cells[2:]] == [255, 128, 0, 255]  # gray: no label
    assert [[c.name for c in cell.captions] for cell in grid.cells] == 4 * [[]] + 2 * [["digit"]]
    assert label_grid([digit], test, np.array([0, 1]), 6.0) is None
    assert min(grid.render("grid", "a title").image.size) > 500


def test_a_legend_breaks_into_lines_as_wide_as_the_grid():
    cell = GridCell(np.zeros((8, 8, 3), np.uint8))
    names = tuple((f"class number {i}", np.full(3, i)) for i in range(7))
    grids = [ImageGrid(cells=[cell], columns=1, width=4.0, legend=names[:n]) for n in (0, 1, 7)]
    lines = [len(grid._legend_lines()) for grid in grids]
    assert lines[:2] == [0, 1]
    assert 2 <= lines[2] <= 7
    heights = [grid.render("grid", "a title").image.height for grid in grids]
    assert heights[0] < heights[1] < heights[2]


def test_early_stopping_and_a_second_look_at_the_test_split_are_remarked():
    metrics = {"a": {"loss": 1.0, "mae": 1.0}}
    result = RunResult(experiment="x", best_step=8, steps=28, validation=metrics, test=metrics)
    again = dataclasses.replace(result, stopped_step=12, test_looks=2)
    tasks = (Regression(name="a"),)
    assert "step 8 of 28" in headline(tasks, result, 5)
    assert "step 8 of 12" in headline(tasks, again, 5)
    assert remarks(tasks, result, {"a": 5}) == []
    stopped, looks = remarks(tasks, again, {"a": 5})
    assert stopped == "Training stopped early, at step 12 of 28."
    assert looks.startswith("This is result 2 of this run on the test split")
