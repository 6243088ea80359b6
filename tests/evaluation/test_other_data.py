"""Evaluation and prediction with a trained run on data that was not used in training."""

import numpy as np
import pytest
from PIL import Image
from support.folders import write_table

import mtljax
from mtljax.build import open_source
from mtljax.config import Data, Experiment
from mtljax.data import from_arrays
from mtljax.main import main
from mtljax.tasks import Classification

NAMES = ("cat", "dog")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 8, 8, 3), np.uint8)
KINDS = [NAMES[i % 2] for i in range(40)]


def experiment(source):
    task = Classification(name="class", num_classes=2, class_names=NAMES)
    data = Data(source=source, batch_size=8)
    return Experiment(name="e", tasks=(task,), data=data, trunk="mlp:widths=(4,)", steps=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other") / "run"
    labels = {"class": np.arange(40) % 2}
    mtljax.train(experiment("arrays"), folder, source=from_arrays(IMAGES, labels), quiet=True)
    return folder


@pytest.fixture(scope="module")
def trained(run):
    return mtljax.load_run(run)


def write_images(folder, rows, split):
    """A table whose rows are all in one split."""
    (folder / "images").mkdir(parents=True)
    listed = []
    for i in rows:
        Image.fromarray(IMAGES[i]).save(folder / "images" / f"{i}.png")
        listed.append({"image": f"{i}.png", "class": KINDS[i], "split": split})
    write_table(folder, listed)
    return f"folder:{folder}"


def write_class_folders(folder, rows, split):
    for i in rows:
        inside = folder / split / KINDS[i]
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[i]).save(inside / f"{i}.png")
    return f"class_folders:{folder}"


@pytest.mark.parametrize("write", [write_images, write_class_folders])
@pytest.mark.parametrize("split", ["test", "validation"])
def test_data_without_training_split_is_evaluated(trained, write, split, tmp_path):
    rows = range(0, 11)
    source = write(tmp_path / "other", rows, split)
    predicted = mtljax.predict(trained, np.asarray(IMAGES[list(rows)]))["class"]
    expected = np.mean([NAMES[p] == KINDS[i] for p, i in zip(predicted, rows, strict=True)])
    for part in (split, "all"):
        metrics = mtljax.evaluate(trained, part, source=source)["class"]
        assert np.sum(metrics["confusion"]) == len(rows)
        np.testing.assert_allclose(metrics["accuracy"], expected)
    other = "validation" if split == "test" else "test"
    message = rf"none of 11 (rows|images) is in the {other} split, only in {split}"
    with pytest.raises(ValueError, match=message):
        mtljax.evaluate(trained, other, source=source)
    with pytest.raises(ValueError, match="in the (train|test|validation) split"):
        open_source(experiment(source))


def test_data_without_some_classes_is_evaluated(trained, tmp_path):
    source = write_class_folders(tmp_path / "cats", range(0, 10, 2), "test")
    metrics = mtljax.evaluate(trained, source=source)["class"]
    confusion = np.asarray(metrics["confusion"])
    assert (confusion[0].sum(), confusion[1].sum()) == (5, 0)
    with pytest.raises(ValueError, match="no folder 'dog', which is in class_names"):
        open_source(experiment(source))
    (tmp_path / "cats/test/cat").rename(tmp_path / "cats/test/owl")
    with pytest.raises(ValueError, match="no folder 'cat', which is in class_names"):
        mtljax.evaluate(trained, source=source)


def test_the_number_of_many_images_is_printed_before_they_are_predicted(run, tmp_path, capsys):
    Image.fromarray(IMAGES[0]).save(tmp_path / "0.png")
    for i in range(1, 120):
        inside = tmp_path / str(i % 3)
        inside.mkdir(exist_ok=True)
        (inside / f"{i}.png").symlink_to(tmp_path / "0.png")
    output = ["--output", str(tmp_path / "out.json")]
    assert main(["predict", "--run", str(run), *output, str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("predicting 120 images\n")
    assert main(["predict", "--run", str(run), *output, str(tmp_path / "0.png")]) == 0
    assert "predicting" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("images", "kind"),
    [
        ({"left": IMAGES, "meta": np.zeros(40)}, "dict"),
        ((IMAGES, IMAGES), "tuple of ndarray"),
        (list(IMAGES), "list of ndarray"),
        ([], "list without items"),
        (5, "int"),
    ],
)
def test_several_inputs_are_not_predicted(trained, images, kind):
    with pytest.raises(ValueError, match=f"or paths of image files, not {kind}$"):
        mtljax.predict(trained, images)


@pytest.mark.parametrize("images", [IMAGES[:0], IMAGES[0], np.stack([IMAGES] * 2, 1)])
def test_images_of_another_shape_are_not_predicted(trained, images):
    with pytest.raises(ValueError, match=r"must be of shape \(B, 8, 8, 3\) with B >= 1, not \("):
        mtljax.predict(trained, images)


@pytest.mark.parametrize("clips", [True, False])
def test_several_inputs_are_refused_wherever_data_is_opened(trained, clips, tmp_path):
    file = tmp_path / "clips.npz"
    np.savez(file, image=np.stack([IMAGES] * 2, 1), **{"class": np.arange(40) % 2})
    source, labels = f"arrays:file={file}", {"class": np.arange(40) % 2}
    if not clips:
        source = from_arrays({"left": IMAGES, "right": IMAGES}, labels)
    message = "the trunks take one image .* per example, but the data has .*inputs"
    with pytest.raises(ValueError, match=message):
        mtljax.evaluate(trained, source=source)
    with pytest.raises(ValueError, match=message):
        open_source(experiment(source if clips else "arrays"), None if clips else source)
