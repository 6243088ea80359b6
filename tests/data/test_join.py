"""Several domains as one stream."""

import json

import numpy as np
import pytest
from PIL import Image

from mtljax.config import find_experiment
from mtljax.data import from_arrays, make_source
from mtljax.data.base import LabelRequest
from mtljax.data.pipeline import read_batch
from mtljax.data.sources.join import join_sources
from mtljax.main import main
from mtljax.tasks import Classification, Regression

SIZES = {"art": 40, "clip": 100, "photo": 10}


def domain(number, size, name):
    """Images that say which they are, and of which domain."""
    image = np.zeros((size, 4, 4, 2), np.uint8)
    image[..., 0] = np.arange(size)[:, None, None]
    image[..., 1] = number
    return from_arrays(image, {name: np.arange(size, dtype=np.int32)})


@pytest.fixture(scope="module")
def sources():
    return {name: domain(i, size, name) for i, (name, size) in enumerate(SIZES.items())}


def test_an_image_has_its_own_domains_label_and_no_other(sources):
    for split in join_sources(sources).splits().values():
        for i in range(len(split)):
            example = split[i]
            row, number = example["image"][0, 0]
            own = list(SIZES)[number]
            assert {n for n, there in example["present"].items() if there} == {own}
            assert example["labels"][own] == row
            assert all(example["labels"][n] == 0 for n in SIZES if n != own)


def test_several_at_once_are_the_same_as_one_by_one(sources):
    split = join_sources(sources, dict.fromkeys(SIZES, 1.0)).train
    rows = np.random.default_rng(0).permutation(len(split))[:20]
    many = split.take(rows)
    one = read_batch(list(map(split.__getitem__, range(len(split)))), rows)
    for part in ("labels", "present"):
        for name in SIZES:
            np.testing.assert_array_equal(many[part][name], one[part][name])
    np.testing.assert_array_equal(many["image"], one["image"])


@pytest.mark.parametrize("shares", [(1, 1, 1), (5, 3, 2), (0.1, 0.1, 0.8)])
def test_proportions_are_kept_and_nothing_is_left_out(sources, shares):
    proportions = dict(zip(SIZES, shares, strict=True))
    source = join_sources(sources, proportions)
    batch = source.train.take(np.arange(len(source.train)))
    for number, (name, share) in enumerate(proportions.items()):
        own = batch["image"][:, 0, 0, 1] == number
        # To half an example, which the count of a domain is rounded by.
        assert own.mean() == pytest.approx(share / sum(shares), abs=1 / len(own))
        assert set(batch["labels"][name][own]) == set(sources[name].train.labels[name])
    assert len(source.test) == sum(len(s.test) for s in sources.values())


def test_without_proportions_every_example_comes_once(sources):
    batch = join_sources(sources).train
    images = batch.take(np.arange(len(batch)))["image"]
    assert len(np.unique(images.reshape(len(batch), -1), axis=0)) == len(batch)


def test_statistics_are_of_all_images(sources):
    source = join_sources(sources)
    images = source.train.take(np.arange(len(source.train)))["image"].astype(float)
    np.testing.assert_allclose(source.mean, images.mean((0, 1, 2)))
    np.testing.assert_allclose(source.std, images.std((0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("proportions", "message"),
    [
        ({"art": 1}, "proportions of art; must be of art, clip, photo"),
        ({"art": 1, "clip": 1, "photo": 0}, "proportions must be > 0"),
    ],
)
def test_proportions_that_make_no_sense_are_refused(sources, proportions, message):
    with pytest.raises(ValueError, match=message):
        join_sources(sources, proportions)


def test_images_of_different_sizes_are_refused(sources):
    image = np.zeros((10, 5, 4, 2), np.uint8)
    with pytest.raises(ValueError, match=r"different sizes .art \(4, 4, 2\), other \(5, 4, 2\)"):
        join_sources({"art": sources["art"], "other": from_arrays(image, {})})


def test_a_domain_that_is_not_there_is_named():
    task = Classification(name="art", num_classes=10)
    with pytest.raises(ValueError, match="requests label 'arts/digit', but the domains are art"):
        make_source("join:{'art':'digits'}", [LabelRequest(task, "arts/digit")])


def test_what_differs_between_domains_is_named(tmp_path):
    for place in ("a/cat", "a/dog", "b/cat", "b/owl"):
        (tmp_path / place).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (4, 4)).save(tmp_path / place / f"{i}.png")
    source = f"join:{{'a':'class_folders:{tmp_path}/a','b':'class_folders:{tmp_path}/b'}}"
    task = Classification(name="kind")
    other = r"other classes in b \(cat, owl\) than in a \(cat, dog\); set class_names"
    with pytest.raises(ValueError, match=other):
        make_source(source, [LabelRequest(task, "class")])
    with pytest.raises(ValueError, match="join, domain a: source class_folders has no labels 'age"):
        make_source(source, [LabelRequest(Regression(name="age"), "age")])
    with pytest.raises(ValueError, match=r"join, domain b: there is no folder .*/c"):
        make_source(source.replace("/b'", "/c'"), [LabelRequest(task, "class")])


DOMAINS = ("Art", "Clipart", "Product", "Real World")


@pytest.fixture(scope="module")
def office(tmp_path_factory):
    """The layout of Office-Home, with 65 classes of a few JPEGs each."""
    where = tmp_path_factory.mktemp("office")
    for number, name in enumerate(DOMAINS):
        for kind in range(65):
            folder = where / "OfficeHomeDataset_10072016" / name / f"Class_{kind:02}"
            folder.mkdir(parents=True)
            for i in range(1, 4):
                size = 10 + kind % 3, 12 + number  # of many sizes, as there
                Image.new("RGB", size, (kind, 60 * number, i)).save(folder / f"{i:05}.jpg")
    return where


@pytest.mark.full
def test_office_home_trains_a_task_per_domain(office, tmp_path, monkeypatch):
    monkeypatch.setenv("MTLJAX_DATA", str(office))
    experiment = find_experiment("office_home")
    source = experiment.data.source.replace("224", "8")
    flags = ["--data.source", source, "--trunk", "mlp:widths=(8,)", "--data.batch-size", "16"]
    flags += ["--steps", "2", "--eval-every", "2", "--data.workers", "0", "--quiet"]
    flags += ["--data.augment", "flip"]
    run = tmp_path / "run"
    assert main(["--experiment", "office_home", *flags, "--workdir", str(run)]) == 0
    result = json.loads((run / "result.json").read_text())["test"]
    assert set(result) == {"art", "clipart", "product", "real_world"}
    assert sum(np.sum(metrics["confusion"]) for metrics in result.values()) == pytest.approx(
        0.2 * 65 * 4 * 3, rel=0.2
    )  # a fifth, drawn by a hash


def images_of(folder, *names, count=6):
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (4, 4)).save(folder / name / f"{i}.png")


def test_a_class_may_be_in_one_domain_only(tmp_path):
    images_of(tmp_path / "a", "cat", "dog")
    images_of(tmp_path / "b", "cat", "owl")
    source = f"join:{{'a':'class_folders:{tmp_path}/a','b':'class_folders:{tmp_path}/b'}}"
    names = ("owl", "dog", "cat")
    joined = make_source(
        source, [LabelRequest(Classification(name="kind", class_names=names), "class")]
    )
    found = [split[i] for split in joined.splits().values() for i in range(len(split))]
    counts = np.bincount([int(example["labels"]["kind"]) for example in found])
    assert counts.tolist() == [6, 6, 12]
    assert all(example["present"]["kind"] for example in found)
    wrong = Classification(name="kind", class_names=(*names, "cow"))
    with pytest.raises(ValueError, match="join: no domain has class 'cow', which is in class_name"):
        make_source(source, [LabelRequest(wrong, "class")])


def test_a_class_that_the_only_requested_domain_lacks_is_an_error(tmp_path):
    images_of(tmp_path / "a", "cat", "dog")
    images_of(tmp_path / "b", "cat", "owl")
    source = f"join:{{'a':'class_folders:{tmp_path}/a','b':'class_folders:{tmp_path}/b'}}"
    task = Classification(name="kind", class_names=("cat", "owl"))
    other = LabelRequest(Classification(name="other"), "b/class")
    with pytest.raises(ValueError, match="domain a: .* has no folder 'owl'"):
        make_source(source, [LabelRequest(task, "a/class"), other])


def test_a_domain_without_a_requested_label_is_named(tmp_path):
    images_of(tmp_path / "a", "cat", "dog")
    images_of(tmp_path / "b", "cat", "owl")
    source = f"join:{{'a':'class_folders:{tmp_path}/a','b':'class_folders:{tmp_path}/b'}}"
    with pytest.raises(ValueError, match="no task requests a label of b: leave it out"):
        make_source(source, [LabelRequest(Classification(name="kind"), "a/class")])
