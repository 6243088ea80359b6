"""What every source promises, and that a run which goes on reads what it would have read."""

import pickle

import jax
import numpy as np
import pytest
from PIL import Image
from support.datasets import (
    SCENE,
    builder_like,
    made,
    make_elpv,
    make_npy_folders,
    scene,
    write_idx,
)
from support.folders import make_folder

from mtljax.data import SOURCES, make_source
from mtljax.data.base import LabelRequest
from mtljax.data.folds import Fold, fold_source
from mtljax.data.pipeline import BatchSampler, padded_batches, read_batch, read_split, stream
from mtljax.data.pool import image_digest
from mtljax.tasks import Classification, Depth, Detection, Regression, Segmentation


def class_of(name, count=10):
    return Classification(name=name, num_classes=count)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a little data for every source."""
    root = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    make_folder(root / "pets")
    make_npy_folders(root, "cityscapes")
    made(builder_like("scenes", "1.0.0", SCENE, {"train": 40}, scene), root / "tfds")
    (root / "idx").mkdir()
    for part, count in (("train", 40), ("t10k", 9)):
        images = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        write_idx(root / "idx" / f"{part}-images-idx3-ubyte", images)
        labels = (np.arange(count) % 10).astype(np.uint8)
        write_idx(root / "idx" / f"{part}-labels-idx1-ubyte.gz", labels)
    image = rng.integers(0, 256, (40, 6, 6, 1), dtype=np.uint8)
    np.savez(root / "arrays.npz", image=image, label=np.arange(40) % 10)
    for domain in ("Art", "Photo"):
        for kind in range(10):
            (root / domain / f"class{kind}").mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(0, 256, (9, 7 + i, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / domain / f"class{kind}" / f"{i}.png")
    make_folder(root / "coco")
    (root / "coco" / "labels.csv").unlink()
    for split in ("train", "val", "test"):
        (root / "yolo" / split).mkdir(parents=True)
        for i in range(9):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "yolo" / split / f"{i}.png")
            (root / "yolo" / split / f"{i}.txt").write_text(i % 3 * "1 0.5 0.5 0.2 0.2\n")
            (root / "yolo" / split / f"{i}.xml").write_text("<annotation></annotation>")
    make_elpv(root / "packages")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root / "packages")
        yield root


SAMPLES = {
    "digits": ("digits", {"digit": class_of("kind")}),
    "elpv": ("elpv:size=4", {"defect": Regression(name="defect"), "type": class_of("kind", 2)}),
    "arrays": ("arrays:{root}/arrays.npz", {"label": class_of("kind")}),
    "idx": ("idx:{root}/idx", {"label": class_of("kind")}),
    "folder": (
        "folder:{root}/pets",
        {
            "mask": Segmentation(name="mask", num_classes=3),
            "boxes.json": Detection(name="boxes", num_classes=2, most=3),
        },
    ),
    "class_folders": ("class_folders:{root}/Art,size=(8,8)", {"class": class_of("kind")}),
    "coco": ("coco:{root}/coco", {"boxes": Detection(name="boxes", most=3)}),
    "voc": ("voc:{root}/yolo", {"boxes": Detection(name="boxes", num_classes=0, most=3)}),
    "yolo": ("yolo:{root}/yolo", {"boxes": Detection(name="boxes", most=3)}),
    "npy_folders": (
        "npy_folders:{root}/cityscapes,validation=0.2,size=(16,32)",
        {
            "label": Segmentation(name="mask", num_classes=7, ignore=-1),
            "depth": Depth(name="depth"),
        },
    ),
    "tfds": ("tfds:scenes,size=(8,8),data_dir='{root}/tfds'", {"label": class_of("kind", 3)}),
    "multi": (
        "multi:'idx:{root}/idx'",
        {"left/label": class_of("a"), "right/label": class_of("b")},
    ),
    "join": (
        "join:{{'art':'class_folders:{root}/Art,size=(8,8)',"
        "'photo':'class_folders:{root}/Photo,size=(8,8)'}},proportions={{'art':1,'photo':2}}",
        {"art/class": class_of("a"), "photo/class": class_of("b")},
    ),
    "scenes": (
        "scenes:size=32,train=12,validation=2,test=2",
        {"segmentation": Segmentation(name="mask", num_classes=13), "depth": Depth(name="depth")},
    ),
}


def opened(name, root):
    text, labels = SAMPLES[name]
    return make_source(
        text.format(root=root), [LabelRequest(task, key) for key, task in labels.items()]
    )


def test_there_is_a_sample_of_every_source():
    assert set(SAMPLES) >= set(SOURCES)


RENDERED = pytest.param("scenes", marks=pytest.mark.slow)  # it compiles a renderer


@pytest.fixture(params=[*(name for name in SAMPLES if name != "scenes"), RENDERED])
def source(request, root):
    return opened(request.param, root)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_examples_are_alike_and_labels_are_called_after_their_tasks(source, request):
    name = request.node.callspec.params["source"]
    tasks = {task.name for task in SAMPLES[name][1].values()}
    told = lambda x: (np.shape(x), np.asarray(x).dtype)
    first = jax.tree.map(told, source.train[0])
    for split in source.splits().values():
        assert len(split) > 0
        for i in {0, len(split) // 2, len(split) - 1}:
            example = split[i]
            assert set(example) == {"image", "labels", "present"}
            assert set(example["labels"]) == set(example["present"]) == tasks
            assert jax.tree.map(told, example) == first
            assert np.asarray(example["image"]).ndim == 3
            assert all(np.asarray(known).dtype == bool for known in example["present"].values())
            assert example["image"].min() >= source.low
            assert example["image"].max() <= source.high


def test_it_is_the_same_when_it_is_opened_again(source, root, request):
    again = opened(request.node.callspec.params["source"], root)
    assert [len(s) for s in again.splits().values()] == [len(s) for s in source.splits().values()]
    for ours, theirs in zip(source.splits().values(), again.splits().values(), strict=True):
        same(ours[len(ours) - 1], theirs[len(ours) - 1])
    assert (source.mean, source.std) == (again.mean, again.std)


def test_one_by_one_and_together_are_the_same(source):
    rows = np.arange(len(source.test))
    together = read_split(source.test)
    same(together, read_batch(source.test, rows))
    same(jax.tree.map(lambda x: x[0], together), dict(source.test[0]))
    assert len(list(padded_batches(source.test, 2))) == -(-len(rows) // 2)


def test_it_can_be_sent_to_worker_processes(source):
    again = pickle.loads(pickle.dumps(source.train))
    same(again[1], source.train[1])


def test_a_run_that_goes_on_reads_exactly_the_next_examples(source):
    """From any step, mid-epoch, and however the batch is shared between two processes."""
    size = len(source.train)
    batch = 2 if size < 8 else 4
    order = BatchSampler(seed=5, size=size, batch_size=batch)
    steps = 3 * size // batch  # three epochs
    whole = list(stream(source.train, order, slice(0, batch), 0, steps))
    for start in (1, size // batch, steps - 2):
        halves = [slice(0, batch // 2), slice(batch // 2, batch)]
        parts = [list(stream(source.train, order, half, start, steps)) for half in halves]
        for expected, *ours in zip(whole[start:], *parts, strict=True):
            same(jax.tree.map(lambda *x: np.concatenate(x), *ours), expected)


def test_folds_test_every_example_once_or_are_refused(source, request):
    if source.fixed_splits:
        assert request.node.callspec.params["source"] in ("multi", "join")
        with pytest.raises(ValueError, match="cannot be divided into folds"):
            fold_source(source, Fold(1, 3))
        return
    tested, total = [], sum(map(len, source.splits().values()))
    for number in (1, 2, 3):
        fold = fold_source(source, Fold(number, 3))
        tested += _digests(fold.test)
        assert sum(map(len, fold.splits().values())) == total
        same(read_batch(fold.train, np.array([1, 0]))["image"][1], fold.train[0]["image"])
        assert pickle.loads(pickle.dumps(fold.train)).places == fold.train.places
    assert sorted(tested) == sorted(
        x for split in source.splits().values() for x in _digests(split)
    )


def _digests(split):
    return [image_digest(np.asarray(split[row]["image"])) for row in range(len(split))]
