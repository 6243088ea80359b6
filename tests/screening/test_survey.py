"""The verb `data`: what is in an experiment's data, as a table, as numbers and as a picture."""

import json

import numpy as np
from PIL import Image
from support.folders import FOR, N, gaps, make_folder, picture, write_experiment, wrong_mask

from mtljax.data import SOURCES
from mtljax.data.statistics import LabelStatistics
from mtljax.main import main
from mtljax.tasks import Regression


def data(experiment, output):
    assert main(["data", "--experiment", str(experiment), "--output", str(output)]) == 0
    return json.loads((output / "statistics.json").read_text())


def test_the_gaps_of_every_task_are_counted(tmp_path, capsys):
    folder = tmp_path / "pets"
    make_folder(folder)
    left = gaps(folder)
    experiment = write_experiment(tmp_path / "pets.py", folder, names=tuple(FOR))
    found = data(experiment, tmp_path / "out")
    for name, rows in left.items():
        parts = [found[part][name] for part in ("train", "validation", "test")]
        assert sum(part["present"] for part in parts) == len(rows)
        assert sum(part["missing"] for part in parts) == N - len(rows)
    kinds = {k: sum(found[p]["kind"]["classes"].get(k, 0) for p in found) for k in ("cat", "dog")}
    assert kinds == {
        "cat": sum(i % 3 == 0 for i in left["kind"]),
        "dog": sum(i % 3 == 1 for i in left["kind"]),
    }
    said = capsys.readouterr().out
    assert "missing" in said
    for name in FOR:
        assert name in said
    with Image.open(tmp_path / "out" / "samples.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert min(pixels.shape[:2]) > 500
    # Eight examples of six pictures each are not a blank page.
    assert (pixels < 250).any(-1).mean() > 0.2


def test_classes_and_ranges_are_those_of_the_data(tmp_path):
    found = data("digits", tmp_path / "out")
    train = SOURCES["digits"]().train
    counts = np.bincount(train.labels["digit"])
    assert found["train"]["digit"]["classes"] == {str(i): int(n) for i, n in enumerate(counts)}
    value = found["train"]["value"]
    assert (value["min"], value["max"]) == (0, 9)
    np.testing.assert_allclose(value["mean"], train.labels["value"].mean(), rtol=1e-6)
    assert found["train"]["examples"] == len(train)


def test_pixels_of_a_mask_are_counted(tmp_path):
    folder = tmp_path / "pets"
    make_folder(folder)
    found = data(write_experiment(tmp_path / "p.py", folder, names=("mask",)), tmp_path / "out")
    masks = [np.asarray(Image.open(folder / "mask" / f"{i:03}.png")) for i in range(3, N, 4)]
    counts = np.bincount(np.ravel(masks))
    assert found["test"]["mask"]["classes"] == {str(i): int(n) for i, n in enumerate(counts)}


def test_what_stops_training_is_a_warning(capsys, tmp_path):
    arguments = ["--experiment", "digits", "--data.augment", "flip", "--output", str(tmp_path)]
    assert main(["data", *arguments]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: task 'value': a mirror image may have another value: set mirror=" in said


def test_a_label_that_is_wrong_is_named(tmp_path, capsys):
    folder = tmp_path / "pets"
    make_folder(folder)
    picture("mask/007.png", wrong_mask(9))(folder)
    experiment = write_experiment(tmp_path / "p.py", folder, names=("mask",))
    assert main(["data", "--experiment", experiment, "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    (problem,) = json.loads((tmp_path / "out" / "problems.json").read_text())
    assert "labels.csv row 9 (007.png): task 'mask': the values 9" in problem["message"]
    where, _, cause = problem["message"].partition(": ")
    assert f"1 example cannot be used: {cause}, first: {where}\n" in said.out


def test_an_output_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    output = str(tmp_path / "file" / "below")
    assert main(["data", "--experiment", "digits", "--output", output]) == 2
    assert "cannot write to" in capsys.readouterr().err
    assert main(["data", "--experiment", "digits", "--samples", "0"]) == 2
    assert "--samples must be >= 1, not 0" in capsys.readouterr().err


def test_many_classes_are_told_by_the_most_and_the_least_frequent():
    statistics = LabelStatistics()
    for c in range(10):
        statistics.add(np.repeat(c, c + 1))
    words = statistics.summary(FOR["mask"])
    assert words.startswith("10 classes: 9 18.2 %, 8 16.4 %")
    assert words.endswith("..., 0 1.82 %")


def test_numbers_are_described_for_each_component():
    task, statistics = Regression(name="r", size=2), LabelStatistics()
    for label in ([1, 10], [3, 20], [2, 60]):
        statistics.add(task.label_values(np.float32(label)))
    assert statistics.summary(task) == "1 .. 3, mean 2; 10 .. 60, mean 30"
    assert statistics.as_json(task)["mean"] == [2, 30]


def test_the_first_line_says_how_much_there_is_and_each_cause_is_printed_once(tmp_path, capsys):
    folder = tmp_path / "pets"
    make_folder(folder)
    for number in (7, 11, 19):
        picture(f"mask/{number:03}.png", wrong_mask(9))(folder)
    experiment = write_experiment(tmp_path / "p.py", folder, names=("mask",))
    assert main(["data", "--experiment", experiment, "--output", str(tmp_path / "out")]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith(f"data of pets: {N} examples (")
    assert "; images 12 x 16 x 3" in said
    assert said.count("cannot be used") == 1
    assert "3 examples cannot be used: task 'mask': the values 9 are not classes; must" in said
