"""Comparisons by cross-validation: folds of all members, per-fold statistics, resumption."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from scipy import stats
from support.comparison import EXPERIMENT, SMALL, write_result
from support.folders import make_folder

from mtljax.comparison import member_training, statistics, table
from mtljax.comparison.compare import compare
from mtljax.comparison.conclusions import conclusions
from mtljax.comparison.cross_validation import cross_validation, labels_of
from mtljax.comparison.plan import plan
from mtljax.comparison.results import collect
from mtljax.config import Data, Experiment
from mtljax.data import SOURCES
from mtljax.data.base import select_labels
from mtljax.data.folds import Fold
from mtljax.data.sources.arrays import from_arrays
from mtljax.tasks import Classification, Regression


def corrected(difference, folds):
    """Mean, half width and p value by Nadeau and Bengio's formula, written out."""
    n = len(difference)
    mean = sum(difference) / n
    variance = sum((x - mean) ** 2 for x in difference) / (n - 1)
    test_over_train = (1 / folds) / (1 - 1 / folds)
    error = (variance * (1 / n + test_over_train)) ** 0.5
    p = 2 * stats.t.cdf(-abs(mean / error), n - 1)
    return mean, stats.t.ppf(0.975, n - 1) * error, p


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_intervals_and_tests_over_folds_are_those_of_the_formula(folds):
    a, b = np.random.default_rng(folds).normal(size=(2, folds))
    mean, half_width, p = corrected(a - b, folds)
    found = statistics.estimate(a - b, folds)
    np.testing.assert_allclose(found[:2], (mean, half_width), rtol=1e-10)
    np.testing.assert_allclose(statistics.paired_t_test(a, b, folds), p, rtol=1e-10)
    assert half_width > statistics.estimate(a - b).half_width
    missing = np.where(np.arange(folds) == 0, np.nan, a)
    if folds > 2:
        mean, half_width, _ = corrected((missing - b)[1:], folds)
        found = statistics.estimate(missing - b, folds)
        np.testing.assert_allclose(found[:2], (mean, half_width), rtol=1e-10)


def write(workdir, values, *, folds=5, **asked):
    """Writes the results of folds; values are {method: [fold, seed, 3] metrics}."""
    methods = plan(EXPERIMENT, **asked)
    for method in methods:
        for (fold, seed), _ in np.ndenumerate(values["ew"][..., 0]):
            row = values["STL" if method.kind == "stl" else method.name][fold, seed]
            folder = method.candidates[0].folder(workdir, seed, Fold(fold + 1, folds))
            write_result(folder, *row, seed=seed)
    return methods


def test_the_result_of_a_fold_is_the_mean_over_its_seeds(tmp_path):
    chance = np.random.default_rng(1)
    values = {name: chance.uniform(0.5, 1, (5, 2, 3)) for name in ("STL", "ew", "uw")}
    methods = write(tmp_path, values, balancers=("ew", "uw"))
    found = collect(EXPERIMENT, methods, range(2), tmp_path, 5)
    rows = {row.name: row for row in found.rows}
    for name, results in values.items():
        np.testing.assert_allclose(rows[name].values, results.mean(1))
    sign, base = np.array([1, -1, -1]), values["STL"].mean(1)
    change = 100 * sign * (values["ew"].mean(1) - base) / base.mean(0)
    delta = (change[:, 0] + change[:, 1:].mean(1)) / 2
    mean, half_width, p = corrected(delta, 5)
    np.testing.assert_allclose(rows["ew"].improvement[:2], (mean, half_width))
    np.testing.assert_allclose(found.test("ew", "STL").p, p)
    assert found.samples == "5 folds with 2 seeds each"
    assert rows["ew"].telemetry["mean_cosine"].seeds == 5
    text = " ".join(conclusions(found))
    assert (
        "Corrected resampled t tests (Nadeau and Bengio, 2003), paired by fold, over 5 folds"
        in text
    )
    assert "at 5 folds" in text
    columns = next(csv.reader(io.StringIO(table.to_csv(found, table.result_columns(found)))))
    assert "delta_m/folds" in columns
    lines = list(csv.DictReader(io.StringIO(table.folds_to_csv(found))))
    assert len(lines) == 3 * 5
    np.testing.assert_allclose(
        [float(line["digit/accuracy"]) for line in lines if line["method"] == "uw"],
        values["uw"].mean(1)[:, 0],
    )


def test_a_metric_that_a_fold_does_not_have_is_named(tmp_path):
    values = {name: np.ones((3, 1, 3)) for name in ("STL", "ew")}
    for metrics in values.values():
        metrics[:, 0, 0] = (0.5, np.nan, 0.75)
    found = collect(EXPERIMENT, write(tmp_path, values, folds=3), range(1), tmp_path, 3)
    assert found.rows[1].metric(0).mean == 0.625
    (sentence,) = [text for text in conclusions(found) if text.startswith("Measured")]
    assert "digit accuracy in 2 of 3 folds" in sentence
    assert "value" not in sentence


def test_each_fold_chooses_its_settings_by_its_own_validation(tmp_path):
    methods = plan(EXPERIMENT, balancers=("ew",), grid=("learning_rate=0.1,0.2",))
    for method in methods:
        for fold in range(3):
            for number, candidate in enumerate(method.candidates):
                # The first is better on validation in folds 1 and 3, and always worse on test.
                loss = 0.5 + 0.1 * (number if fold != 1 else 1 - number)
                folder = candidate.folder(tmp_path, 0, Fold(fold + 1, 3))
                write_result(folder, 0.5 + 0.3 * number, 1.0, 1.0, validation=loss)
    found = collect(EXPERIMENT, methods, range(1), tmp_path, 3)
    row = found.rows[-1]
    assert row.values[:, 0].tolist() == [0.5, 0.8, 0.5]
    assert row.settings == "learning_rate=0.1 in folds 1 and 3, learning_rate=0.2 in fold 2"


def test_all_members_see_the_same_folds_and_test_each_example_once(tmp_path):
    make_folder(tmp_path / "pets")
    kinds = ("cat", "dog", "owl")
    experiment = Experiment(
        name="pets",
        tasks=(
            Classification(name="kind", num_classes=3, class_names=kinds),
            Regression(name="weight"),
        ),
        data=Data(source=f"folder:'{tmp_path / 'pets'}'", batch_size=8),
        trunk="mlp:widths=(4,),norm=none",
    )
    methods = plan(experiment, balancers=("ew", "uw"))
    division = cross_validation(experiment, 4, methods)
    tested = {}
    for method in methods:
        for fold in division.folds:
            member = method.candidates[0].member(0, fold)
            source = labels_of(division.load(member), member)
            assert set(source.train.labels) == {task.name for task in member.tasks}
            parts = {
                name: [split.place(row) for row in range(len(split))]
                for name, split in source.splits().items()
            }
            assert len({place for part in parts.values() for place in part}) == 24
            tested.setdefault(method.name, []).append(parts["test"])
    assert len({json.dumps(folds) for folds in tested.values()}) == 1
    folds = tested["ew"]
    assert sorted(map(len, folds)) == [6, 6, 6, 6]
    assert len({place for fold in folds for place in fold}) == 24


def test_single_task_networks_have_the_folds_of_all_tasks(monkeypatch):
    """Also of a source that leaves out examples without a label of the requested tasks."""

    def sparse(requests):
        number = np.arange(60)
        present = {"digit": number % 3 > 0, "value": number % 3 < 2}
        keep = np.any([present[request.key] for request in requests], 0)
        image = number.astype(np.float32)[keep, None, None, None]
        labels = {"digit": number[keep] % 10, "value": number[keep].astype(np.float32)}
        masks = {name: mask[keep] for name, mask in present.items()}
        return select_labels(from_arrays(image, labels, masks), requests, "sparse")

    monkeypatch.setitem(SOURCES, "sparse", sparse)
    data = dataclasses.replace(SMALL.data, source="sparse", batch_size=8)
    experiment = dataclasses.replace(SMALL, data=data)
    methods = plan(experiment, balancers=("ew",))
    division = cross_validation(experiment, 3, methods)
    tested = {}
    for method in methods:
        for fold in division.folds:
            member = method.candidates[0].member(0, fold)
            source = labels_of(division.load(member), member)
            tested.setdefault(method.name, []).append(sorted(source.test.image.ravel().tolist()))
    assert tested["STL digit"] == tested["STL value"] == tested["ew"]
    assert sorted(sum(tested["ew"], [])) == list(range(60))


def test_methods_on_other_examples_are_refused(tmp_path):
    make_folder(tmp_path / "pets")
    make_folder(tmp_path / "more")
    lines = (tmp_path / "more" / "labels.csv").read_text().splitlines(keepends=True)
    (tmp_path / "more" / "labels.csv").write_text("".join(lines[:-1]))
    task = Classification(name="kind", num_classes=3, class_names=("cat", "dog", "owl"))
    data = Data(source=f"folder:'{tmp_path / 'pets'}'", batch_size=8)
    experiment = Experiment(name="pets", tasks=(task,), data=data)
    division = cross_validation(experiment, 4, plan(experiment))
    fewer = dataclasses.replace(data, source=f"folder:'{tmp_path / 'more'}'", fold="1/4")
    with pytest.raises(ValueError, match="must be compared on the same examples"):
        division.load(dataclasses.replace(experiment, data=fewer))


ONE_TASK = dataclasses.replace(SMALL, tasks=SMALL.tasks[:1], telemetry_every=0)
ASKED = {"balancers": ("uw",), "seeds": 2, "folds": 2, "devices": 1, "quiet": True}


@pytest.mark.full
def test_an_interrupted_cross_validation_ends_as_if_nothing_had_happened(tmp_path, monkeypatch):
    found, failures = compare(ONE_TASK, tmp_path / "whole", **ASKED)
    assert not failures
    assert found.folds == 2
    train_group, calls = member_training.train_group, []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return train_group(*arguments, **options)

    monkeypatch.setattr(member_training, "train_group", interrupted)
    folder = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        compare(ONE_TASK, folder, **ASKED)
    before = {file: file.stat().st_mtime_ns for file in folder.glob("members/**/result.json")}
    assert 0 < len(before) < 8
    again, failures = compare(ONE_TASK, folder, **ASKED)
    assert not failures
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())
    assert len(list(folder.glob("members/*/fold-[12]-of-2/seed-[01]/result.json"))) == 8
    for name in ("results.csv", "results.md", "results_per_fold.csv", "folds-2.csv"):
        assert (folder / name).read_text() == (tmp_path / "whole" / name).read_text()
    for ours, theirs in zip(again.rows, found.rows, strict=True):
        np.testing.assert_array_equal(ours.values, theirs.values)
    page = (folder / "report.html").read_text()
    assert "divided into the same 2 folds for all" in page
    assert "mean over folds" in page
    assert "mean over seeds" not in page

    (folder / "folds-2.csv").write_text("split,row,place,fold\n")
    with pytest.raises(ValueError, match="has a cross-validation of other examples"):
        compare(ONE_TASK, folder, **ASKED)


@pytest.mark.full
def test_a_teacher_that_has_learned_the_test_examples_is_refused(tmp_path):
    short = dataclasses.replace(ONE_TASK, steps=2, eval_every=2)
    compare(short, tmp_path / "first", balancers=("ew",), folds=2, devices=1, quiet=True)
    run = next((tmp_path / "first").glob("members/*/fold-1-of-2/seed-0"))
    taught = dataclasses.replace(short, teachers={"digit": str(run)})
    with pytest.raises(ValueError, match="was trained on examples that"):
        compare(taught, tmp_path / "second", folds=2, devices=1, quiet=True)
    assert not (tmp_path / "second").exists()
