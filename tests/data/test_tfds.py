"""TensorFlow Datasets: prepared by the real machinery, and read without TensorFlow or a network."""

import json
import pickle
import socket
import sys

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from support.cli import run
from support.datasets import SCENE, builder_like, encoded, made, scene

from mtljax.build import load_source
from mtljax.config import find_experiment
from mtljax.data import make_source, pipeline
from mtljax.data.base import LabelRequest
from mtljax.data.cache import cached_source
from mtljax.data.prepare import prepare
from mtljax.data.sources.tfds import _splits
from mtljax.main import main
from mtljax.tasks import Classification, Detection, Keypoints, MultiLabel


def real_features(name, folder):
    """The features of the builder that TFDS comes with; its code is run, nothing downloaded."""
    return tfds.builder(name, data_dir=folder, try_gcs=False).info.features


SCENE_TASKS = [
    LabelRequest(Classification(name="kind", num_classes=3), "label"),
    LabelRequest(Classification(name="mark", num_classes=2), "marks/a"),
    LabelRequest(MultiLabel(name="marks", num_classes=2, class_names=("b", "a")), "marks"),
    LabelRequest(Keypoints(name="nose", num_keypoints=1), "nose"),
    LabelRequest(Detection(name="objects", num_classes=4, most=2), "objects"),
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    made(builder_like("scenes", "1.2.0", SCENE, {"train": 60}, scene), folder)
    return folder


def opened(folder, arguments=",size=(20,24)", wanted=SCENE_TASKS):
    return make_source(f"tfds:scenes,data_dir='{folder}'{arguments}", wanted)


def test_cached_examples_are_those_of_the_records(scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = opened(scenes)
    cached = cached_source(source, 1.0, builds=True)
    assert len(list(tmp_path.glob("mtljax/examples/*/content.json"))) == 3 * (1 + len(SCENE_TASKS))
    for name, split in source.splits().items():
        rows = np.arange(len(split))
        expected = pipeline.read_batch(split, rows)
        jax.tree.map(np.testing.assert_array_equal, cached.splits()[name].take(rows), expected)


def test_what_was_prepared_comes_back(scenes):
    source = opened(scenes, ",size=(10,12)")
    assert [len(s) for s in source.splits().values()] == [48, 6, 6]
    seen = []
    for split in source.splits().values():
        for example in map(split.__getitem__, range(len(split))):
            i = int(example["image"][0, 0, 0])
            seen.append(i)
            if i % 3 == 0:  # of the size asked for, so not resized
                written = np.asarray(Image.open(scene_of(i)["image"]))
                np.testing.assert_array_equal(example["image"], written)
                assert example["labels"]["nose"].tolist() == [[3, i % 7, 1]]
            labels, present = example["labels"], example["present"]
            assert present["kind"] == (i % 4 > 0)
            assert labels["kind"] == max(i % 4 - 1, 0)
            assert labels["mark"] == i % 2
            assert labels["marks"].tolist() == [i % 3 > 0, i % 2]
            assert (labels["objects"]["classes"] >= 0).sum() == i % 3
    assert sorted(seen) == list(range(60))


def scene_of(i):
    return scene(np.random.default_rng([0, i]), i)


def test_boxes_and_points_are_in_pixels_of_the_size_asked_for(scenes):
    source = opened(scenes)
    for example in map(source.train.__getitem__, range(len(source.train))):
        assert example["image"].shape == (20, 24, 3)
        boxes = example["labels"]["objects"]
        for box, kind in zip(boxes["boxes"], boxes["classes"], strict=True):
            if kind >= 0:
                np.testing.assert_allclose(box, [0, 6, 10, 24], atol=1e-4)


def test_training_imports_no_tensorflow_and_opens_no_connection(scenes, tmp_path):
    """In a process of its own, in which every connection is refused."""
    code = f"""
import socket, sys
def refused(*arguments): raise AssertionError("a connection was opened")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refused
from mtljax.data import make_source
from mtljax.data.base import LabelRequest
from mtljax.tasks import Classification
wanted = [LabelRequest(Classification(name="mark", num_classes=2), "marks/a")]
source = make_source("tfds:scenes,size=(8,8),data_dir='{scenes}'", wanted)
print(len(source.train), source.train[0]["image"].shape, "tensorflow" in sys.modules)
"""
    done = run([sys.executable, "-c", code])
    assert done.stdout == "48 (8, 8, 3) False\n", done.stderr


def test_a_split_can_be_sent_to_another_process(scenes):
    split = opened(scenes).train
    again = pickle.loads(pickle.dumps(split))
    np.testing.assert_array_equal(again[5]["image"], split[5]["image"])


@pytest.mark.parametrize(
    ("known", "arguments", "expected"),
    [
        ({"train", "validation", "test"}, {}, ("train", "validation", "test")),
        ({"train", "test"}, {}, ("train[:90%]", "train[90%:100%]", "test")),
        ({"train", "validation"}, {}, ("train[:90%]", "validation", "train[90%:100%]")),
        ({"train"}, {}, ("train[:80%]", "train[80%:90%]", "train[90%:100%]")),
        ({"train", "dev"}, {"validation": "dev", "test": "dev"}, ("train", "dev", "dev")),
    ],
)
def test_what_has_no_split_of_its_own_is_cut_off_the_training_split(known, arguments, expected):
    settings = {"train": "train", "validation": None, "test": None, **arguments}
    assert tuple(_splits(known, **settings).values()) == expected


WANT_MARK = [LabelRequest(Classification(name="mark", num_classes=2), "marks/a")]


@pytest.mark.parametrize(
    ("arguments", "wanted", "message"),
    [
        ("", WANT_MARK, "images of different sizes: give size="),
        (",size=(8,)", WANT_MARK, "size must be .height, width., not .8,."),
        (",image=img", WANT_MARK, "no feature 'img' for the image"),
        (",size=(8,8),test=tset", WANT_MARK, "no split 'tset'"),
        (
            ",size=(8,8)",
            [LabelRequest(Classification(name="mark", num_classes=2), "marks/c")],
            "no feature 'marks/c' for task 'mark'; did you mean 'marks/a'|marks/b",
        ),
        (
            ",size=(8,8)",
            [LabelRequest(Classification(name="kind", num_classes=5), "label")],
            "task 'kind' has num_classes=5, but the data has 3 classes",
        ),
        (
            ",size=(8,8)",
            [LabelRequest(Detection(name="objects", num_classes=4, most=1), "objects")],
            r"tfds scenes train.* example \d+: task 'objects': 2 boxes; set `most`",
        ),
    ],
)
def test_mistakes_are_named(scenes, arguments, wanted, message):
    with pytest.raises(ValueError, match=message):
        pipeline.read_split(opened(scenes, arguments, wanted).train)


def test_data_that_is_not_prepared_is_one_line_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", None)  # nothing may look for a network
    assert main(["--experiment", "cifar100", "--workdir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert (
        f"tfds cifar100 is not prepared in {tmp_path}: run `python -m mtljax.main prepare"
        in said[0]
    )


def test_the_verb_prepares_and_then_says_that_it_is_done(tmp_path, monkeypatch, capsys):
    cls = builder_like("verb_scenes", "1.0.0", SCENE, {"train": 40}, scene)
    monkeypatch.setitem(tfds.core.registered._DATASET_REGISTRY, "verb_scenes", cls)
    (tmp_path / "mine.py").write_text(
        "from mtljax.config import Data, Experiment\n"
        "from mtljax.tasks import Classification\n"
        "experiment = Experiment(name='mine', trunk='mlp:widths=(8,)', steps=2, eval_every=2,\n"
        "    tasks=(Classification(name='mark', num_classes=2),),\n"
        f"    data=Data(source=\"tfds:verb_scenes,size=(8,8),data_dir='{tmp_path}'\",\n"
        "              labels={'mark': 'marks/a'}, batch_size=8))\n"
    )
    flags = ["--experiment", str(tmp_path / "mine.py")]
    assert main(["prepare", *flags]) == 0
    assert "tfds verb_scenes is prepared, in" in capsys.readouterr().out
    assert main(["prepare", *flags]) == 0
    assert "is prepared already" in capsys.readouterr().out
    assert main([*flags, "--workdir", str(tmp_path / "run"), "--quiet"]) == 0
    assert json.loads((tmp_path / "run/result.json").read_text())["test"]["mark"]["accuracy"] >= 0


def test_preparing_says_what_it_lacks(tmp_path, monkeypatch):
    def lacking(*arguments, **settings):
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", lacking)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=r"needs the package tensorflow: pip install 'mtljax.prep"):
        prepare("tfds:cifar100")


def test_preparing_without_a_network_says_so(tmp_path, monkeypatch):
    def unreachable(*arguments, **settings):
        raise ConnectionError("Failed to resolve 'www.cs.toronto.edu'")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", unreachable)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="tfds cifar100 cannot be prepared: ConnectionError: Fail"):
        prepare("multi:'tfds:cifar100'")


def test_preparing_what_there_is_not_names_the_nearest():
    with pytest.raises(ValueError, match="no data set 'cifar101'; did you mean 'cifar10"):
        prepare("tfds:cifar101")
    assert prepare("digits") == []


def photo(rng, height, width):
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def pet(rng, i):
    size = 40 + i % 5, 50
    return {
        "image": encoded(photo(rng, *size), "JPEG"),
        "label": i % 37,
        "species": i % 2,
        "file_name": f"{i}.jpg",
        "segmentation_mask": encoded(rng.integers(1, 4, size, dtype=np.uint8)),
        "head_bbox": tfds.features.BBox(0.1, 0.2, 0.5, 0.6)
        if i % 3
        else tfds.features.BBox(0.0, 0.0, 0.0, 0.0),
    }


def face(rng, i):
    names = real_features("celeb_a", None)
    return {
        "image": encoded(photo(rng, 218, 178), "JPEG"),
        "landmarks": dict.fromkeys(names["landmarks"], 100),
        "attributes": {name: (i + k) % 3 == 0 for k, name in enumerate(names["attributes"])},
        "identity": {"Identity_No": i},
    }


def thing(rng, i):
    image = encoded(photo(rng, 32, 32))
    return {"id": f"train_{i}", "image": image, "label": i % 100, "coarse_label": i % 20}


def shapes(rng, i):
    counts = {"floor_hue": 10, "wall_hue": 10, "object_hue": 10, "scale": 8, "shape": 4}
    labels = {f"label_{name}": i % n for name, n in {**counts, "orientation": 15}.items()}
    values = {f"value_{name[6:]}": np.float32(n / 10) for name, n in labels.items()}
    return {"image": encoded(photo(rng, 64, 64)), **labels, **values}


REAL = {
    "oxford_pets": ("oxford_iiit_pet", "4.0.0", {"train": 40, "test": 12}, pet),
    "celeb_a": ("celeb_a", "2.1.0", {"train": 20, "validation": 8, "test": 8}, face),
    "cifar100": ("cifar100", "3.0.2", {"train": 40, "test": 12}, thing),
    "shapes3d": ("shapes3d", "2.0.0", {"train": 60}, shapes),
}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Prepared data with the features of the real builders, as TFDS itself declares them."""
    folder = tmp_path_factory.mktemp("real")
    for name, version, splits, example in REAL.values():
        features = real_features(name, folder)
        made(builder_like(name, version, features, splits, example), folder)
    return folder


@pytest.mark.parametrize("name", REAL)
def test_an_experiment_finds_its_labels_in_the_real_schema(name, real, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(real))
    experiment = find_experiment(name)
    source = load_source(experiment)
    example = source.train[0]
    assert set(example["labels"]) == {task.name for task in experiment.tasks}
    assert example["image"].dtype == np.uint8
    for example in map(source.train.__getitem__, range(len(source.train))):
        for task in experiment.tasks:
            if example["present"][task.name]:
                task.check(jax.tree.map(lambda x: x[None], example["labels"][task.name]))


def test_pets_have_a_mask_from_0_and_only_the_heads_that_are_there(real, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(real))
    train = load_source(find_experiment("oxford_pets")).train
    assert set(np.unique(train.labels["mask"])) == {0, 1, 2}
    assert train.image.shape[1:] == (128, 128, 3)
    breeds = train.labels["breed"]
    # Every third image has an empty box, which means that nobody drew one.
    expected = [i % 37 for i in range(40) if i % 3 == 0]
    assert set(breeds[~train.present["head"]]) <= set(expected)
    heads = train.labels["head"]["boxes"][train.present["head"]][:, 0]
    np.testing.assert_allclose(heads, np.tile([12.8, 25.6, 64, 76.8], (len(heads), 1)), rtol=1e-4)


def test_faces_have_their_40_attributes(real, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(real))
    experiment = find_experiment("celeb_a")
    split = load_source(experiment).test
    assert len(experiment.tasks) == 40
    names = list(real_features("celeb_a", None)["attributes"])
    assert [task.name for task in experiment.tasks] == [name.lower() for name in sorted(names)]
    for example in map(split.__getitem__, range(len(split))):
        on = [int(example["labels"][name.lower()]) for name in names]
        assert on in [[int((i + k) % 3 == 0) for k in range(40)] for i in range(3)]
