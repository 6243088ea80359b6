"""A trained run used from Python: evaluate, predict and export on a folder or a loaded model."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import mtljax
from mtljax.build import load_source


@pytest.fixture(scope="module")
def trained(trained_run):
    return mtljax.load_run(trained_run)


@pytest.fixture(scope="module")
def images(trained):
    return np.stack([load_source(trained.experiment).test[i]["image"] for i in range(70)])


def test_evaluate_gives_the_metrics_of_the_result(trained, trained_run):
    expected = json.loads((trained_run / "result.json").read_text())
    found = mtljax.evaluate(str(trained_run))
    assert set(found) == {task.name for task in trained.experiment.tasks}
    for task, metrics in found.items():
        assert metrics["loss"] == pytest.approx(expected["test"][task]["loss"], rel=1e-5)
    validation = mtljax.evaluate(trained, "validation")
    for task, metrics in validation.items():
        assert metrics["loss"] == pytest.approx(expected["validation"][task]["loss"], rel=1e-5)
    with pytest.raises(ValueError, match="unknown split 'tests'; did you mean 'test'"):
        mtljax.evaluate(trained, "tests")


def test_evaluate_takes_data_in_memory(trained):
    source = load_source(trained.experiment)
    assert mtljax.evaluate(trained, source=source) == mtljax.evaluate(trained)


def test_predictions_of_arrays_have_the_form_of_labels(trained, trained_run, images):
    found = mtljax.predict(trained_run, images)
    assert set(found) == {task.name for task in trained.experiment.tasks}
    for values in found.values():
        assert len(values) == 70
    one = mtljax.predict(trained, images[3:4])
    for task, values in one.items():
        np.testing.assert_allclose(values[0], found[task][3], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="images must be of shape"):
        mtljax.predict(trained, images[0])


def test_predictions_of_files_are_those_of_their_pixels(trained, images, tmp_path):
    np.save(tmp_path / "a.npy", images[0])
    span = trained.high - trained.low
    gray = np.round((images[1, ..., 0] - trained.low) / span * 255).astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / "b.png")
    pixels = np.stack([images[0], trained.low + gray[..., None] / 255 * span])
    expected = mtljax.predict(trained, pixels.astype(np.float32))
    found = mtljax.predict(trained, [tmp_path / "a.npy", str(tmp_path / "b.png")])
    for task, values in found.items():
        np.testing.assert_allclose(values, expected[task], rtol=1e-5, atol=1e-6)
    single = mtljax.predict(trained, tmp_path / "a.npy")
    assert all(len(values) == 1 for values in single.values())


def test_export_takes_a_folder_or_a_loaded_model(trained, trained_run, tmp_path):
    one = mtljax.export(str(trained_run), "safetensors", str(tmp_path / "one.safetensors"))
    two = mtljax.export(trained, to="safetensors", output=tmp_path / "two.safetensors")
    assert [file.name for file in one.files] == ["one.safetensors"]
    first, second = load_file(one.files[0]), load_file(two.files[0])
    assert set(first) == set(second)
    assert all((first[name] == second[name]).all() for name in first)
    with pytest.raises(ValueError, match="a loaded model has no run folder: give output=FILE"):
        mtljax.export(trained, "safetensors")
