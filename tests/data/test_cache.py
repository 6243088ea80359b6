"""Cache of decoded examples: the same examples, shared safely, never stale, within its limit."""

import dataclasses
import multiprocessing
import os
import pickle
import shutil
import stat

import jax
import numpy as np
import pytest
from PIL import Image

from mtljax.build import load_source, open_source
from mtljax.config import Data, Experiment
from mtljax.data import cache, pipeline
from mtljax.data.packs import CONTENT, PackedSplit
from mtljax.tasks import Classification, Depth, Detection, Segmentation
from mtljax.utils.terminal import announcements

RNG = np.random.default_rng(0)
TASKS = (
    Classification(name="kind", num_classes=3),
    Segmentation(name="mask", num_classes=3, ignore=255),
    Detection(name="boxes", num_classes=1, most=2),
)
SIZE = "size=(12,16)"
N = 20


@pytest.fixture(autouse=True)
def _cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rows = ["image,kind,mask,boxes,split"]
    for i in range(N):
        values = RNG.integers(0, 256, (24, 32, 3)).astype(np.uint8)
        Image.fromarray(values).save(folder / "images" / f"{i}.jpg")
        Image.fromarray(np.full((24, 32), i % 3, np.uint8)).save(folder / "masks" / f"{i}.png")
        mask = "" if i == 3 else f"masks/{i}.png"
        boxes = f'"[[1, 2, 20, {10 + i}]]"' if i % 2 else ""
        rows.append(f"{i}.jpg,{i % 3},{mask},{boxes},{('train', 'val', 'test')[i % 3]}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


def experiment(root, tasks=TASKS, limit=1.0, size=SIZE, **data):
    source = f"folder:{root},{size}"
    data = Data(source=source, cache=limit, keep_on_device="no", batch_size=4, **data)
    return Experiment(name="a", tasks=tasks, data=data)


def read(source):
    return {name: [split[i] for i in range(len(split))] for name, split in source.splits().items()}


def assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


def packs(tmp_path):
    return {file.parent for file in (tmp_path / "home/mtljax/examples").glob(f"*/{CONTENT}")}


def test_cached_examples_are_those_of_the_files(root, tmp_path):
    without = load_source(experiment(root, limit=None))
    assert not (tmp_path / "home").exists()
    with_cache = load_source(experiment(root))
    assert all(type(split) is PackedSplit for split in with_cache.splits().values())
    assert len(packs(tmp_path)) == 3 * (1 + len(TASKS))
    assert_equal(read(without), read(with_cache))
    assert (with_cache.mean, with_cache.std, with_cache.notes) == (
        *(without.mean, without.std),
        without.notes,
    )
    rows = np.asarray([3, 0, 3])
    batches = [pipeline.read_batch(source.train, rows) for source in (without, with_cache)]
    assert_equal(*batches)


def test_a_later_run_reads_no_image(root, tmp_path, monkeypatch):
    expected = read(load_source(experiment(root)))
    source = open_source(experiment(root))  # evaluation uses the cache, too
    monkeypatch.setattr("mtljax.data.file_examples.read_content", None)
    assert_equal(read(source), expected)


def test_evaluation_writes_no_cache(root, tmp_path):
    open_source(experiment(root))
    assert not (tmp_path / "home").exists()


def test_methods_with_some_of_the_tasks_share_the_images(root, tmp_path):
    load_source(experiment(root))
    before = packs(tmp_path)
    source = load_source(experiment(root, tasks=TASKS[:1]))
    assert type(source.train) is PackedSplit
    assert packs(tmp_path) == before


def changes(root):
    """Returns changes after which other examples must be read."""

    def rewrite():
        path = root / "images" / "0.jpg"
        Image.new("RGB", (32, 24), "red").save(path)

    def touch():
        os.utime(root / "images" / "0.jpg", ns=(1, 1))

    def relabel():
        table = root / "labels.csv"
        table.write_text(table.read_text().replace("0.jpg,0,", "0.jpg,1,"))

    def repaint():
        Image.new("L", (32, 24), 2).save(root / "masks" / "0.png")
        os.utime(root / "masks" / "0.png", ns=(1, 1))

    return {
        "image": (rewrite, {}),
        "time": (touch, {}),
        "label": (relabel, {}),
        "mask": (repaint, {}),
        "size": (lambda: None, {"size": "size=(6,8)"}),
        "channels": (lambda: None, {"size": f"{SIZE},channels=1"}),
        "decoder": (lambda: None, {"decoder": "turbo_scaled"}),
        "task": (lambda: None, {"tasks": (dataclasses.replace(TASKS[0], num_classes=4),)}),
    }


@pytest.mark.parametrize("name", list(changes(None)))
def test_a_change_of_a_file_or_setting_is_another_pack(name, root, tmp_path):
    load_source(experiment(root))
    before = packs(tmp_path)
    change, settings = changes(root)[name]
    change()
    new = experiment(root, **settings)
    assert_equal(
        read(load_source(new)),
        read(load_source(dataclasses.replace(new, data=dataclasses.replace(new.data, cache=None)))),
    )
    assert packs(tmp_path) - before


def test_the_cache_stays_within_its_limit(root, tmp_path, capsys):
    load_source(experiment(root, tasks=TASKS[:1]))
    (total,) = {sum(f.stat().st_size for p in packs(tmp_path) for f in p.iterdir())}
    oldest = packs(tmp_path)
    for pack in oldest:
        os.utime(pack / CONTENT, (1, 1))
    limit = 1.5 * total / cache.GB
    with announcements(True):
        other = experiment(root, tasks=TASKS[:1], limit=limit, decoder="pillow")
        source = load_source(other)
    assert type(source.train) is PackedSplit
    assert sum(f.stat().st_size for p in packs(tmp_path) for f in p.iterdir()) < 1.5 * total
    assert oldest - packs(tmp_path)
    assert "used longest ago" in capsys.readouterr().out
    with announcements(True):
        source = load_source(experiment(root, limit=1e-6))
    assert type(source.train) is not PackedSplit
    assert "more than the limit of 1e-06: 7 examples are read from their files" in (
        capsys.readouterr().out
    )
    assert_equal(read(source), read(load_source(experiment(root, limit=None))))


def test_a_damaged_pack_is_written_again(root, tmp_path, capsys):
    expected = read(load_source(experiment(root)))
    first, second, third, *_ = sorted(packs(tmp_path))
    array = first / "0.npy"
    array.write_bytes(array.read_bytes()[:-1])
    (second / CONTENT).write_text("{")
    shutil.rmtree(third)
    with announcements(True):
        assert_equal(read(load_source(experiment(root))), expected)
    assert capsys.readouterr().out.count("was damaged and is written again") == 2


def test_only_the_user_may_read_the_cache(root, tmp_path):
    load_source(experiment(root))
    folders = {tmp_path / "home/mtljax/examples", *packs(tmp_path)}
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_a_cache_that_cannot_be_written_is_not_used(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "disk full")))
    with announcements(True):
        source = load_source(experiment(root))
    assert "cannot write to" in capsys.readouterr().out
    assert not packs(tmp_path)
    assert not list((tmp_path / "home/mtljax/examples").iterdir())
    assert len(read(source)["train"]) == 7


def test_unusable_examples_stay_unusable(root, tmp_path):
    content = (root / "images" / "6.jpg").read_bytes()
    (root / "images" / "6.jpg").write_bytes(content[: len(content) // 2])
    source = load_source(experiment(root))
    row = next(i for i in range(7) if "6.jpg" in source.train.place(i))
    with pytest.raises(ValueError, match="6.jpg.*cannot be read as an image"):
        source.train[row]
    with pytest.raises(ValueError, match="6.jpg.*cannot be read as an image"):
        source.train.take(np.asarray([0, row]))
    skipping = load_source(experiment(root, on_error="skip"))
    assert len(skipping.train) == 6
    expected = load_source(experiment(root, limit=None, on_error="skip"))
    assert_equal(read(skipping), read(expected))
    assert skipping.notes == expected.notes


def test_folds_and_drop_lists_are_above_the_cache(root, tmp_path):
    plain = load_source(experiment(root, limit=None, fold="2/3"))
    load_source(experiment(root))
    before = packs(tmp_path)
    cached = load_source(experiment(root, fold="2/3"))
    assert packs(tmp_path) == before
    assert cached.folds == plain.folds
    assert_equal(read(cached), read(plain))


def test_joined_domains_are_cached_one_by_one(root, tmp_path):
    source = f"join:{{'a':'folder:{root},{SIZE}','b':'folder:{root},{SIZE},seed=1'}}"
    data = Data(source=source, keep_on_device="no", batch_size=4)
    plain = Experiment(name="a", tasks=TASKS[:1], data=data)
    cached = dataclasses.replace(plain, data=dataclasses.replace(data, cache=1.0))
    assert_equal(read(load_source(cached)), read(load_source(plain)))
    assert len(packs(tmp_path)) == 3 * 2  # both domains have the same files


def test_arrays_in_files_are_cached(tmp_path):
    folder = tmp_path / "npy"
    for part in ("train", "val"):
        for kind, shape in (("image", (6, 8, 3)), ("depth", (6, 8, 1))):
            (folder / part / kind).mkdir(parents=True)
            for i in range(6):
                values = RNG.uniform(0.1, 1, shape).astype(np.float32)
                np.save(folder / part / kind / f"{i}.npy", values)
    data = Data(source=f"npy_folders:{folder},size=(3,4)", keep_on_device="no", batch_size=2)
    plain = Experiment(name="a", tasks=(Depth(name="depth", center=0.5, scale=1.0),), data=data)
    cached = dataclasses.replace(plain, data=dataclasses.replace(data, cache=1.0))
    assert_equal(read(load_source(cached)), read(load_source(plain)))
    assert len(packs(tmp_path)) == 3 * 2


def test_a_packed_split_is_sent_to_workers_without_its_arrays(root):
    split = load_source(experiment(root)).train
    first = split[0]
    split.take(np.arange(7))
    assert len(pickle.dumps(split.packs)) < 2000
    assert_equal(pickle.loads(pickle.dumps(split))[0], first)


def _load(arguments, queue):
    queue.put(read(load_source(experiment(arguments))))


@pytest.mark.full  # two processes that import everything
def test_two_runs_at_once_write_one_cache(root, tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    runs = [context.Process(target=_load, args=(root, queue)) for _ in range(2)]
    for run in runs:
        run.start()
    results = [queue.get(timeout=600) for _ in runs]
    for run in runs:
        run.join()
    assert_equal(*results)
    assert len(packs(tmp_path)) == 3 * (1 + len(TASKS))
    assert {path.name for path in (tmp_path / "home/mtljax/examples").iterdir()} == {
        pack.name for pack in packs(tmp_path)
    }
