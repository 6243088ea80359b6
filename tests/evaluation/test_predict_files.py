"""Predictions for image files: equal to those of evaluation, in the files' own pixels."""

import json
import os
import re

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.folders import write_table

import mtljax
from mtljax.config import Data, Experiment, to_json
from mtljax.data import layouts
from mtljax.data.base import LabelRequest
from mtljax.data.notes import NoteCounter
from mtljax.data.sources import make_source
from mtljax.evaluation.evaluator import make_evaluator
from mtljax.evaluation.predict_files import find_images, predict_files, restored
from mtljax.main import main
from mtljax.parallel import place
from mtljax.tasks import (
    Classification,
    Depth,
    Detection,
    Edges,
    Keypoints,
    MultiLabel,
    Normals,
    Regression,
    Segmentation,
)
from mtljax.utils.files import write_json

SIZE, MODEL = (24, 48), (12, 16)
DENSE = {"decoder": "linear"}
TASKS = (
    Classification(name="kind", num_classes=3, class_names=("cat", "dog", "owl")),
    MultiLabel(name="traits", num_classes=2, class_names=("wild", "old")),
    Regression(name="weight"),
    Segmentation(name="mask", num_classes=3, class_names=("sky", "sea", "tree"), **DENSE),
    Depth(name="depth", center=4.0, **DENSE),
    Normals(name="normals", **DENSE),
    Edges(name="edges", **DENSE),
    Keypoints(name="eyes", num_keypoints=2, **DENSE),
    Detection(name="boxes", num_classes=1, most=5, **DENSE),
)
ENDINGS = ("png", "jpg", "tif", "npy", "png")
FACTOR = np.asarray([SIZE[0] / MODEL[0], SIZE[1] / MODEL[1]])


def write_image(path, pixels, i):
    """An image of 8 or 16 bits, in the format of its extension."""
    if path.suffix == ".npy":
        np.save(path, pixels.astype(np.uint16) * 257)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, pixels.astype(np.uint16) * 200 + i, photometric="rgb")
    else:
        Image.fromarray(pixels).save(path)


def make_data(root, count=20):
    for name in ("images", "maps"):
        (root / name).mkdir(parents=True)
    rng, rows, coco = np.random.default_rng(0), [], {"images": [], "annotations": []}
    for i in range(count):
        name = f"{i:02}.{ENDINGS[i % 5]}"
        write_image(root / "images" / name, rng.integers(0, 256, (*SIZE, 3), np.uint8), i)
        save = lambda kind, array, i=i: Image.fromarray(array).save(root / f"maps/{kind}{i}.png")
        save("mask", rng.integers(0, 3, SIZE, np.uint8))
        save("edges", rng.integers(0, 2, SIZE, np.uint8))
        save("depth", rng.integers(1, 9, SIZE).astype(np.uint16))
        save("normals", rng.integers(1, 256, (*SIZE, 3), np.uint8))
        maps = {kind: f"maps/{kind}{i}.png" for kind in ("mask", "edges", "depth", "normals")}
        split = ("train", "train", "validation", "test")[i % 4]
        numbers = {"y0": 3, "x0": 4, "y1": 20, "x1": 40, "wild": i % 2, "old": 1, "weight": i}
        kind = ("cat", "dog", "owl")[i % 3]
        rows.append({"image": name, "kind": kind, "split": split, **maps, **numbers})
        coco["images"].append({"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        coco["annotations"].append({"image_id": i, "category_id": 1, "bbox": [4, 4, 12, 12]})
    write_table(root, rows)
    coco["categories"] = [{"id": 1, "name": "thing"}]
    (root / "boxes.json").write_text(json.dumps(coco))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set with images of all kinds, and a run of one step."""
    root = tmp_path_factory.mktemp("predict")
    make_data(root / "data")
    labels = {"traits": "wild,old", "boxes": "boxes.json", "eyes": "y0,x0,y1,x1"}
    source = f"folder:{str(root / 'data')!r},size={MODEL}".replace(" ", "")
    data = Data(source=source, labels=labels, batch_size=8)
    experiment = Experiment(
        name="all",
        tasks=TASKS,
        data=data,
        trunk="cnn:widths=(8,)",
        steps=1,
        eval_every=1,
        telemetry_every=0,
    )
    write_json(root / "config.json", to_json(experiment))
    command = ["--experiment", str(root / "config.json"), "--workdir", str(root / "run"), "--quiet"]
    assert main(command) == 0
    return root


@pytest.fixture(scope="module")
def trained(folder):
    return mtljax.load_run(folder / "run")


def picture(path):
    with Image.open(path) as file:
        file.load()
        return file


def images_of(folder):
    return sorted((folder / "data/images").iterdir())


def test_predictions_for_files_are_those_of_evaluation(folder, trained):
    experiment = trained.experiment
    requests = [LabelRequest(t, experiment.data.labels.get(t.name, t.name)) for t in TASKS]
    split = make_source(experiment.data.source, requests).test
    evaluator = make_evaluator(experiment, trained.model, split, place(8, 1))
    _, evaluated = evaluator.metrics_and_predictions(trained.state)
    paths = [folder / "data/images" / f"{i:02}.{ENDINGS[i % 5]}" for i in range(3, 20, 4)]
    assert {path.suffix for path in paths} == {".png", ".jpg", ".tif", ".npy"}
    found = mtljax.predict(trained, paths)
    for task in TASKS:
        decoded = task.decode(evaluated.outputs[task.name])
        for i in range(len(paths)):
            one = lambda tree, i=i: {k: v[i] for k, v in tree.items()}
            is_tree = isinstance(decoded, dict)
            value = one(decoded) if is_tree else np.asarray(decoded)[i]
            expected = restored(task, value, MODEL, SIZE)
            actual = one(found[task.name]) if is_tree else found[task.name][i]
            for key in expected if is_tree else [None]:
                a, b = (x if key is None else x[key] for x in (actual, expected))
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=task.name)


def test_predictions_are_in_the_pixels_of_the_file(folder, trained):
    paths = images_of(folder)[:2]
    found = mtljax.predict(trained, paths)
    for name, channels in {"mask": (), "depth": (), "edges": (), "normals": (3,)}.items():
        assert found[name].shape == (2, *SIZE, *channels)
    large = picture(paths[0]).resize((MODEL[1], MODEL[0]), Image.Resampling.BILINEAR)
    small = mtljax.predict(trained, np.asarray(large, np.float32)[None])
    points = np.clip(small["eyes"][0, :, :2] * FACTOR, 0, SIZE)
    np.testing.assert_allclose(found["eyes"][0, :, :2], points, rtol=1e-5)
    np.testing.assert_allclose(found["eyes"][0, :, 2], small["eyes"][0, :, 2], rtol=1e-5)
    boxes = np.clip(small["boxes"]["boxes"][0] * np.tile(FACTOR, 2), 0, np.tile(SIZE, 2))
    np.testing.assert_allclose(found["boxes"]["boxes"][0], boxes, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(found["mask"][0, ::2, 1::3], small["mask"][0])


def test_files_of_different_sizes_give_a_list_of_maps(folder, trained, tmp_path):
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    found = mtljax.predict(trained, [tmp_path / "a.png", images_of(folder)[0]])
    assert [mask.shape for mask in found["mask"]] == [(20, 40), SIZE]
    assert found["kind"].shape == (2,)
    assert found["boxes"]["boxes"].shape == (2, 5, 4)


def test_the_json_has_both_sizes_and_the_maps_are_pictures(folder, tmp_path, capsys):
    output = tmp_path / "out.json"
    Image.new("RGB", (40, 20), "red").save(tmp_path / "other.png")
    command = ["predict", "--run", str(folder / "run"), "--output", str(output), "--overlay"]
    files = [str(folder / "data/images/00.png"), str(tmp_path / "other.png")]
    assert main([*command, *files]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines()[:-1])) <= 80
    assert f"resized to {MODEL[0]} x {MODEL[1]} for the network" in printed
    entries = json.loads(output.read_text())
    assert [entry["size"] for entry in entries] == [list(SIZE), [20, 40]]
    assert [entry["model_size"] for entry in entries] == [list(MODEL)] * 2
    for entry in entries:
        size = tuple(entry["size"])
        for name in ("mask", "depth", "edges", "normals"):
            assert np.load(entry[name]["prediction"]).shape[:2] == size
            assert picture(entry[name]["png"]).size == size[::-1]
            assert picture(entry[name]["overlay"]).size == size[::-1]
        mask = picture(entry["mask"]["png"])
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), np.load(entry["mask"]["prediction"]))
        assert np.shape(entry["eyes"]["prediction"]) == (2, 3)
        assert np.shape(entry["boxes"]["prediction"]["boxes"]) == (5, 4)
        for name in ("eyes", "boxes"):
            assert picture(entry[name]["overlay"]).size == size[::-1]
        assert "overlay" not in entry["kind"]
        assert entry["mask"]["text"].split()[0] in ("sky", "sea", "tree")


def test_probabilities_are_named_and_ranked(folder, tmp_path):
    output = tmp_path / "out.json"
    command = ["predict", "--run", str(folder / "run"), "--output", str(output), "--top-k", "2"]
    assert main([*command, str(folder / "data/images/00.png")]) == 0
    (entry,) = json.loads(output.read_text())
    kind = entry["kind"]
    assert set(kind["probabilities"]) == {"cat", "dog", "owl"}
    assert sum(kind["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    ranked = sorted(kind["probabilities"].items(), key=lambda item: -item[1])[:2]
    assert [(top["class"], top["probability"]) for top in kind["top"]] == ranked
    assert kind["text"] == ranked[0][0]
    traits = entry["traits"]["probabilities"]
    assert [p > 0.5 for p in traits.values()] == [x == 1 for x in entry["traits"]["prediction"]]


def test_folders_and_patterns_are_searched(tmp_path):
    for name in ("a/x.png", "a/b/y.JPG", "a/notes.txt", "a/c.json", "z.tif", "[1].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = lambda *names: [
        str(path.relative_to(tmp_path)) for path in find_images([tmp_path / n for n in names])
    ]
    assert found("a") == ["a/b/y.JPG", "a/x.png"]
    assert found("*/*.png", "z.tif") == ["a/x.png", "z.tif"]
    assert found("**/*.png") == ["[1].png", "a/x.png"]
    assert found("[1].png") == ["[1].png"]
    assert found("none.png") == ["none.png"]


def test_hidden_files_are_left_out_as_in_training_and_broken_links_are_not(tmp_path):
    for name in ("x.png", "._x.png", ".thumbnails/x.png", "__MACOSX/._x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "y.png").symlink_to(tmp_path / "absent.png")
    assert [path.name for path in find_images([tmp_path])] == ["x.png", "y.png"]
    trained = [path.name for path in layouts.find_images(tmp_path, NoteCounter())]
    assert trained == ["x.png", "y.png"]


def test_unreadable_files_are_reported_and_the_others_predicted(folder, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for i in range(3):
        Image.new("RGB", (40, 20)).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "images/1.png").write_bytes(b"no image")
    tifffile.imwrite(
        tmp_path / "images/bands.tif", np.zeros((8, 8, 5), np.uint8), photometric="rgb"
    )
    output = tmp_path / "out.json"
    command = ["predict", "--run", str(folder / "run"), "--output", str(output)]
    assert main([*command, str(tmp_path / "images")]) == 2
    out, err = capsys.readouterr()
    assert re.fullmatch(
        r"mtljax: 2 of 4 images cannot be predicted; first: .*1.png: cannot be read as .*\n", err
    )
    assert "written to" in out
    entries = json.loads(output.read_text())
    assert ["error" in entry for entry in entries] == [False, True, False, True]
    assert "has 5 channels, not 3" in entries[3]["error"]
    assert entries[2]["kind"]["text"] in ("cat", "dog", "owl")


def test_nothing_is_left_if_prediction_fails(trained, tmp_path):
    output = tmp_path / "out.json"
    output.write_text("old")
    with pytest.raises(ValueError, match="no image file .*none.png"):
        predict_files(trained, [tmp_path / "none.png"], output)
    assert output.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.json"]


def test_another_source_and_all_splits_are_evaluated(folder, trained, tmp_path, capsys):
    make_data(tmp_path / "other", 8)
    source = f"folder:{str(tmp_path / 'other')!r},size={MODEL}".replace(" ", "")
    before = json.loads((folder / "run/result.json").read_text())
    command = ["evaluate", "--run", str(folder / "run"), "--source", source]
    output = tmp_path / "all.json"
    assert main([*command, "--split", "all", "--output", str(output)]) == 0
    assert "all split of folder:" in capsys.readouterr().out.replace("\n", "")
    found = json.loads(output.read_text())
    assert found["source"] == source
    assert np.sum(found["metrics"]["kind"]["confusion"]) == 8
    assert np.sum(mtljax.evaluate(trained, source=source)["kind"]["confusion"]) == 2
    assert json.loads((folder / "run/result.json").read_text()) == before
    wrong = source.partition(",size")[0]
    with pytest.raises(ValueError, match=r"add size=\(12,16\) and channels=3 to the source"):
        mtljax.evaluate(trained, source=wrong)
    with pytest.raises(ValueError, match="unknown split 'tests'"):
        mtljax.evaluate(trained, "tests", source=source)


def test_some_tasks_are_evaluated_on_data_with_their_labels_only(folder, trained, tmp_path):
    rng = np.random.default_rng(1)
    for name in ("cat", "dog", "owl"):
        (tmp_path / "other" / name).mkdir(parents=True)
        for i in range(2):
            pixels = rng.integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "other" / name / f"{i}.png")
    source, output = f"class_folders:{tmp_path / 'other'}", tmp_path / "e.json"
    with pytest.raises(ValueError, match="no labels 'wild,old' for task 'traits'"):
        mtljax.evaluate(trained, "all", source=source, labels={"kind": "class"})
    with pytest.raises(ValueError, match="no task 'kid'; did you mean 'kind'"):
        mtljax.evaluate(trained, "all", source=source, tasks=["kid"])
    command = ["evaluate", "--run", str(folder / "run"), "--source", source, "--split", "all"]
    command += ["--tasks", "kind", "--labels", "kind", "class", "--output", str(output)]
    assert main(command) == 0
    metrics = json.loads(output.read_text())["metrics"]
    assert list(metrics) == ["kind"]
    predicted = mtljax.predict(trained, sorted(tmp_path.glob("other/*/*.png")))["kind"]
    truth = np.repeat([0, 1, 2], 2)
    assert metrics["kind"]["accuracy"] == pytest.approx(np.mean(np.asarray(predicted) == truth))


def test_temperatures_are_fitted_stored_and_used(folder, tmp_path, capsys):
    predict = ["predict", "--run", str(folder / "run"), str(folder / "data/images/00.png")]
    read = lambda: json.loads((tmp_path / "p.json").read_text())[0]
    assert main([*predict, "--output", str(tmp_path / "p.json")]) == 0
    plain = read()
    assert "temperature" not in plain["kind"]
    evaluate = ["evaluate", "--run", str(folder / "run"), "--output", str(tmp_path / "e.json")]
    try:
        assert main([*evaluate, "--calibrate"]) == 0
        assert "calibration of probabilities" in capsys.readouterr().out
        stored = json.loads((folder / "run/calibration.json").read_text())["tasks"]
        assert set(stored) == {"kind", "traits"}
        assert stored["kind"]["after"]["nll"] <= stored["kind"]["before"]["nll"]
        assert stored["kind"]["count"] == 5
        assert len(stored["kind"]["held_out"]) == 2
        assert main([*predict, "--output", str(tmp_path / "p.json")]) == 0
        scaled = read()
        temperature = scaled["kind"]["temperature"]
        assert temperature == stored["kind"]["temperature"]
        logits = np.log(list(plain["kind"]["probabilities"].values())) / temperature
        expected = np.exp(logits) / np.exp(logits).sum()
        found = list(scaled["kind"]["probabilities"].values())
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        (folder / "run/calibration.json").write_text('{"step": 1, "tasks": {"kind": {}}}')
        assert main([*predict, "--output", str(tmp_path / "p.json")]) == 2
        assert "calibration.json is damaged; delete it" in capsys.readouterr().err
    finally:
        (folder / "run/calibration.json").unlink()
