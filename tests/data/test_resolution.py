"""Fields of tasks that are derived from the data, and examples that cannot be used."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from mtljax.build import load_source, open_source
from mtljax.config import Data, Experiment, read_config
from mtljax.data import from_arrays
from mtljax.data.problems import known_problems
from mtljax.data.resolve import derivations, resolve_tasks
from mtljax.main import main
from mtljax.screening.survey import survey
from mtljax.tasks import Classification, Depth, MultiLabel, Regression, Segmentation
from mtljax.training.setup import set_up

SPLITS = ("train", "train", "train", "train", "validation", "test")


def write_table(folder, **columns):
    """A folder with a table of these columns, six rows, and an image of 4 x 4 pixels for each."""
    (folder / "images").mkdir(parents=True)
    lines = [",".join(["image", "split", *columns])]
    for i, split in enumerate(SPLITS):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(folder / "images" / f"{i}.png")
        lines.append(",".join([f"{i}.png", split, *(str(c[i]) for c in columns.values())]))
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def experiment_of(folder, *tasks, **data):
    data = Data(source=f"folder:{folder}", batch_size=2, **data)
    return Experiment(name="e", tasks=tasks, data=data, trunk="mlp:widths=(4,)", steps=2)


@pytest.mark.parametrize(
    ("cells", "names", "classes"),
    [
        (["cat", "dog", "cat", "ant", "dog", "cat"], ("ant", "cat", "dog"), [1, 2, 1, 0, 2, 1]),
        ([10, 9, 10, 9, 10, 9], ("9", "10"), [1, 0, 1, 0, 1, 0]),
        (["1.0", "2.0", "", "2.0", "1.0", "1.0"], ("1", "2"), [0, 1, None, 1, 0, 0]),
        (["b", "a", "b", "a", "b", "only test"], ("a", "b", "only test"), [1, 0, 1, 0, 1, 2]),
        (["img10", "img9"] * 3, ("img9", "img10"), [1, 0] * 3),
    ],
)
def test_classes_are_those_of_the_table(cells, names, classes, tmp_path):
    source = load_source(
        experiment_of(write_table(tmp_path, kind=cells), Classification(name="kind"))
    )
    (task,) = source.tasks
    assert (task.num_classes, task.class_names) == (len(names), names)
    read = np.concatenate([split.labels["kind"] for split in source.splits().values()])
    present = np.concatenate([split.present["kind"] for split in source.splits().values()])
    assert [int(c) if p else None for c, p in zip(read, present, strict=True)] == classes


def test_indices_stay_indices_and_their_number_is_that_of_all_splits(tmp_path):
    experiment = experiment_of(
        write_table(tmp_path, kind=[0, 1, 0, 1, 2, 3]), Classification(name="kind")
    )
    (task,) = set_up(experiment, devices=1).experiment.tasks
    assert (task.num_classes, task.class_names) == (4, ("0", "1", "2", "3"))
    given = dataclasses.replace(experiment, tasks=(Classification(name="kind", num_classes=5),))
    assert set_up(given, devices=1).experiment.tasks == given.tasks


def test_a_table_with_other_classes_than_declared_is_refused(tmp_path):
    folder = write_table(tmp_path, kind=["a", "b", "c"] * 2)
    with pytest.raises(ValueError, match="num_classes=2, but the data has 3 classes: a, b, c"):
        open_source(experiment_of(folder, Classification(name="kind", num_classes=2)))
    fractions = write_table(tmp_path / "other", kind=[0.5, 1.5] * 3)
    with pytest.raises(ValueError, match="is not a class index|unknown class"):
        load_source(experiment_of(fractions, Classification(name="kind")))


def test_center_and_scale_are_those_of_the_training_labels_per_component(tmp_path):
    a, b = [1950, 1960, 1970, 1980, 9999, 5555], [0.1, 0.2, 0.3, 0.4, 7, 8]
    folder = write_table(tmp_path, a=a, b=b)
    experiment = experiment_of(
        folder,
        Regression(name="both", size=2),
        Regression(name="year", center=1900.0),
        labels={"both": "a,b", "year": "a"},
    )
    both, year = set_up(experiment, devices=1).experiment.tasks
    np.testing.assert_allclose(both.center, (np.mean(a[:4]), np.mean(b[:4])), rtol=1e-5)
    np.testing.assert_allclose(both.scale, (np.std(a[:4]), np.std(b[:4])), rtol=1e-5)
    assert year.center == 1900.0
    np.testing.assert_allclose(year.scale, np.std(a[:4]), rtol=1e-5)


def test_the_loss_does_not_depend_on_the_unit_of_a_component():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(50, 2)).astype(np.float32)
    factors, offsets = np.float32([1000, 0.01]), np.float32([2000, -5])
    plain = Regression(name="r", size=2).resolve(labels)
    scaled = Regression(name="r", size=2).resolve(labels * factors + offsets)
    unit = rng.normal(size=(50, 2)).astype(np.float32)
    loss = lambda task: task.loss(
        np.float32(task.center) + np.float32(task.scale) * unit,
        np.float32(task.center) + np.float32(task.scale) * labels,
        np.ones(50, bool),
    )
    np.testing.assert_allclose(loss(plain), loss(scaled), rtol=1e-2)


def test_constant_labels_have_scale_1():
    task = Regression(name="r").resolve(np.full(5, 3.0, np.float32))
    assert (task.center, task.scale) == (3.0, 1.0)


def test_arrays_in_memory_are_resolved_too():
    image, kind = np.zeros((20, 4, 4, 1), np.uint8), np.arange(20) % 3
    source = from_arrays(image, {"kind": kind, "value": np.arange(20.0)})
    tasks = Classification(name="kind"), Regression(name="value")
    kind, value = resolve_tasks(tasks, source)
    assert kind.num_classes == 3
    np.testing.assert_allclose(value.center, source.train.labels["value"].mean(), rtol=1e-5)
    assert len(derivations(tasks, (kind, value))) == 2


def test_a_run_records_what_was_derived_and_is_resumed_with_it(tmp_path, capsys):
    folder = write_table(tmp_path / "data", kind=["b", "a"] * 3, size=[1, 2, 3, 4, 5, 6])
    path = tmp_path / "e.py"
    path.write_text(
        "from mtljax import Data, Experiment\n"
        "from mtljax.tasks import Classification, Regression\n"
        "experiment = Experiment(name='e', steps=4, trunk='mlp:widths=(4,)', eval_every=2,\n"
        "    tasks=(Classification(name='kind'), Regression(name='size')),\n"
        f"    data=Data(source='folder:{folder}', batch_size=2))\n"
    )
    run = tmp_path / "run"
    train = ["--experiment", str(path), "--workdir", str(run), "--devices", "1"]
    assert main(train) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "task 'kind': num_classes 2, class_names (a, b), from the data" in said
    kind, size = read_config(run / "config.json").tasks
    assert kind.class_names == ("a", "b")
    assert size.center == 2.5
    assert main(train) == 0  # finished already: the same experiment
    assert main([*train, "--steps", "6"]) == 0
    assert main(["evaluate", "--run", str(run)]) == 0
    config = json.loads((run / "config.json").read_text())
    config["tasks"][1] |= {"center": 0.0, "scale": 1.0}  # as by a version without derivation
    (run / "config.json").write_text(json.dumps(config))
    assert main([*train, "--steps", "8"]) == 0
    assert read_config(run / "config.json").tasks[1].center == 0.0


BROKEN = {
    "missing image": lambda f: (f / "images" / "1.png").unlink(),
    "damaged image": lambda f: (f / "images" / "1.png").write_bytes(b"no image"),
    "invalid cell": lambda f: edit_table(f, "1.png,train,a", "1.png,train,sqare"),
    "image of another size": lambda f: Image.new("RGB", (5, 5)).save(f / "images" / "1.png"),
}


def edit_table(folder, old, new):
    text = (folder / "labels.csv").read_text()
    assert old in text
    (folder / "labels.csv").write_text(text.replace(old, new))


@pytest.mark.parametrize("damage", BROKEN)
def test_one_bad_row_is_an_error_or_is_left_out_and_counted(damage, tmp_path):
    folder = write_table(tmp_path, kind=["b", "a"] * 3)
    BROKEN[damage](folder)
    task = Classification(name="kind", class_names=("a", "b"))
    with pytest.raises(ValueError, match="1.png"):
        load_source(experiment_of(folder, task))
    source = load_source(experiment_of(folder, task, on_error="skip"))
    assert [len(split) for split in source.splits().values()] == [3, 1, 1]
    assert source.train.image[:, 0, 0, 0].tolist() == [0, 2, 3]
    (note,) = source.notes
    assert (note.kind, note.count) == ("dropped", 1)
    assert "labels.csv row 3 (1.png)" in note.first


def test_all_problems_are_listed_in_one_pass(tmp_path, capsys):
    folder = write_table(tmp_path / "data", kind=["b", "a"] * 3)
    BROKEN["missing image"](folder)
    edit_table(folder, "3.png,train,a", "3.png,train,ape")
    (folder / "images" / "5.png").write_bytes(b"no image")
    path = tmp_path / "e.py"
    path.write_text(
        "from mtljax import Data, Experiment\n"
        "from mtljax.tasks import Classification\n"
        "KIND = Classification(name='kind', class_names=('a', 'b'))\n"
        "experiment = Experiment(name='e', tasks=(KIND,),\n"
        f"    data=Data(source='folder:{folder}', batch_size=2))\n"
    )
    arguments = ["data", "--experiment", str(path), "--output", str(tmp_path / "out")]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out.count("cannot be used: ") == 3
    problems = json.loads((tmp_path / "out" / "problems.json").read_text())
    assert [(p["split"], p["row"]) for p in problems] == [("train", 1), ("train", 3), ("test", 0)]
    assert said.err == ("mtljax: 3 examples cannot be used; --data.on-error skip leaves them out\n")
    assert main([*arguments, "--data.on-error", "skip"]) == 0


def test_most_files_decide_which_size_is_another(tmp_path):
    folder = write_table(tmp_path, kind=["b", "a"] * 3)
    Image.new("RGB", (5, 5)).save(folder / "images" / "0.png")  # the first row
    task = Classification(name="kind", class_names=("a", "b"))
    (problem,) = known_problems(open_source(experiment_of(folder, task)))
    assert "row 2 (0.png): 0.png is 5 x 5, but that of row 3 is 4 x 4" in problem.message


def test_maps_without_a_measured_pixel_are_missing_and_counted(tmp_path):
    folder = write_table(tmp_path, depth=[f"d{i}.npy" for i in range(6)])
    for i in range(6):
        np.save(folder / f"d{i}.npy", np.full((4, 4), float(i % 2), np.float32))
    source = load_source(experiment_of(folder, Depth(name="depth")))
    assert source.train.present["depth"].tolist() == [False, True, False, True]
    (note,) = source.notes
    assert (note.kind, note.count) == ("missing", 3)
    assert "depth maps without a measured pixel" in note.what


def test_a_number_of_classes_that_the_data_cannot_tell_is_requested(tmp_path):
    folder = write_table(tmp_path, mask=[f"m{i}.png" for i in range(6)])
    for i in range(6):
        Image.fromarray(np.full((4, 4), i % 3, np.uint8)).save(folder / f"m{i}.png")
    experiment = experiment_of(folder, Segmentation(name="mask", decoder="linear"))
    assert set_up(experiment, devices=1).experiment.tasks[0].num_classes == 3
    streamed = experiment_of(folder, Segmentation(name="mask"), keep_on_device="no")
    with pytest.raises(ValueError, match="task 'mask': set num_classes or class_names"):
        set_up(streamed, devices=1)
    assert survey(streamed, tmp_path / "out", 2).tasks[0].num_classes == 3  # it reads all labels


def test_data_counts_the_classes_of_arrays_as_training_does(tmp_path):
    labels = np.zeros((20, 3), np.int32)
    labels[:, 0] = 1  # no example has the last class
    np.savez(tmp_path / "data.npz", image=np.zeros((20, 4, 4, 1), np.uint8), tags=labels)
    data = Data(source=f"arrays:{tmp_path / 'data.npz'}", batch_size=2)
    tasks = (MultiLabel(name="tags"),)
    experiment = Experiment(name="e", tasks=tasks, data=data, trunk="mlp:widths=(4,)", steps=2)
    assert set_up(experiment, devices=1).experiment.tasks[0].num_classes == 3
    assert survey(experiment, tmp_path / "out", 2).tasks[0].num_classes == 3
