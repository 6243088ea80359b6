"""Hostile files: no loader executes, writes, or takes much memory for what they say."""

import resource
import shutil
import warnings

import jax.numpy as jnp
import pyrage
import pytest
from support import hostile

from mtljax.config import Data, Experiment, read_config
from mtljax.data.annotations.coco import read_coco
from mtljax.data.annotations.voc import read_image_set, read_voc_file
from mtljax.data.annotations.yolo import read_label_file, read_yolo_file
from mtljax.data.files import images
from mtljax.data.notes import NoteCounter
from mtljax.data.sources.arrays import arrays
from mtljax.data.sources.idx import read_idx
from mtljax.data.tables.table import read_table
from mtljax.evaluation.predictor import read_image
from mtljax.runs import signing
from mtljax.runs.encrypted_store import AgeStore
from mtljax.runs.encryption import parse_keys, read_keys
from mtljax.runs.folder import check_folder, read_result
from mtljax.runs.input_spec import read_input
from mtljax.runs.load import TrainedModel, load_run
from mtljax.runs.orbax_store import OrbaxStore
from mtljax.tasks import Classification
from mtljax.transfer import read
from mtljax.utils import bounded_reading
from mtljax.utils.bounded_reading import stored_bytes
from mtljax.utils.files import write_text
from mtljax.utils.safetensors import unpack

EXPERIMENT = Experiment(
    name="a", tasks=(Classification(name="digit", num_classes=10),), data=Data(source="digits")
)
TRAINED = TrainedModel(EXPERIMENT, None, None, 0, (8, 8, 1), "float32", 0.0, 16.0)
KEYS = parse_keys(str(pyrage.x25519.Identity.generate()), "KEY")
MOST = 2**30
"""Bytes by which the process may grow. Both limits of `mtljax.utils.bounded_reading` are far below
it, and what one loader allocates is not always given back before the next."""


def opened(path):
    """As an encrypted checkpoint."""
    return AgeStore(path.parent, KEYS, read_only=True).open(10)


def unpacked(path):
    try:
        return unpack(bounded_reading.read_bytes(path), "it")
    except OSError as error:
        raise ValueError(error.strerror) from None


def as_key(path):
    return read_keys({"MTLJAX_KEY_FILE": str(path)})


LOADERS = {
    "picture": ("image.png", lambda path: images.read_image(path, 3, (8, 8))),
    "picture to predict": ("image.jpg", lambda path: read_image(path, TRAINED)),
    "array": ("image.npy", lambda path: images.read_image(path, 1)),
    "array to predict": ("image.npy", lambda path: read_image(path, TRAINED)),
    "size of a picture": ("image.png", images.image_size),
    "label": ("label.png", images.read_map),
    "label in an array": ("label.npy", images.read_map),
    "kind of a label": ("label.npy", images.storage_format),
    "archive of arrays": ("data.npz", lambda path: arrays(str(path))),
    "idx": ("train-images-idx3-ubyte", read_idx),
    "packed idx": ("train-images-idx3-ubyte.gz", read_idx),
    "csv": ("labels.csv", read_table),
    "jsonl": ("labels.jsonl", read_table),
    "parquet": ("labels.parquet", read_table),
    "coco": ("boxes.json", lambda path: read_coco(path, NoteCounter())),
    "yolo": ("data.yaml", read_yolo_file),
    "yolo labels": ("1.txt", lambda path: read_label_file(path, (9, 9), None, NoteCounter())),
    "voc": ("1.xml", lambda path: read_voc_file(path, 1, True, NoteCounter())),
    "voc list": ("train.txt", read_image_set),
    "configuration": ("config.json", read_config),
    "input": ("input.json", lambda path: read_input(path.parent)),
    "result": ("result.json", lambda path: read_result(path.parent)),
    "encrypted checkpoint": ("10.age", opened),
    "weights": ("model.safetensors", unpacked),
    "initial weights": ("model.safetensors", read),
    "initial weights of PyTorch": ("model.pth", read),
    "key": ("key.txt", as_key),
}


@pytest.fixture(scope="module")
def canary(tmp_path_factory):
    return tmp_path_factory.mktemp("outside") / "canary"


@pytest.fixture(scope="module")
def payloads(canary):
    return hostile.payloads(canary)


@pytest.fixture
def watched(canary, tmp_path, monkeypatch):
    """A folder to work in; afterwards nothing else was written, and little memory taken."""
    inside = tmp_path / "a" / "b" / "data"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield inside
    assert not canary.exists()
    written = {path for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()}
    assert all(path.parent == inside or inside in path.parents for path in written)
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MOST


def harmless(load, path):
    """Loads, or says in one line why not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load(path)
    except ValueError:  # of which the command line makes one line
        pass


@pytest.mark.parametrize("loader", LOADERS)
def test_every_loader_survives_every_hostile_file(loader, payloads, watched):
    name, load = LOADERS[loader]
    for payload in payloads.values():
        hostile.put(watched / name, payload)
        harmless(load, watched / name)
        assert {path.name for path in watched.iterdir()} == {name}


def test_there_are_more_than_two_hundred(payloads):
    assert len(payloads) * len(LOADERS) > 200
    assert len(payloads) > 60


def test_a_run_folder_full_of_hostile_files(payloads, watched, trained_run):
    files = sorted(path.relative_to(trained_run) for path in trained_run.rglob("*"))
    targets = [
        path for path in files if (trained_run / path).is_file() and path.parts[0] != "plots"
    ]
    chosen = [payloads[name] for name in ("pickle 2", "npz of objects", "zip bomb", "nested json")]
    chosen += [
        payloads[name] for name in ("link to a device", "link to a folder", "sparse", "nothing")
    ]
    for number, target in enumerate(targets):
        folder = watched / "run"
        shutil.copytree(trained_run, folder)
        hostile.put(folder / target, chosen[number % len(chosen)])
        harmless(lambda path: load_run(path), folder)
        harmless(lambda path: check_folder(path, read_config(trained_run / "config.json")), folder)
        shutil.rmtree(folder)


@pytest.mark.full
def test_a_checkpoint_that_unpacks_to_far_more_is_not_read(tmp_path):
    store = OrbaxStore(tmp_path, read_only=False)
    store.save(1, {"zeros": jnp.zeros(2**26)}, 0.0)
    store.wait()
    assert stored_bytes(tmp_path) < 2**20
    with pytest.raises(ValueError, match="claims to hold 268435456 bytes") as error:
        store.open(1)
    assert "\n" not in str(error.value)
    store.close()


def test_a_hostile_signature(payloads, watched):
    (watched / "model").write_bytes(b"weights")
    for payload in payloads.values():
        hostile.put(watched / "model.sig", payload)
        hostile.put(watched / "key.pem", payload)
        for act in (signing.sign, signing.verify):
            with pytest.raises(ValueError, match=r"^.*$") as error:
                act(watched / "model", watched / "key.pem")
            assert "\n" not in str(error.value)
            assert not (watched / "model.sig.part").exists()


def test_links_in_a_run_folder_do_not_lead_out_of_it(trained_run, tmp_path, watched):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in ("config.json", "config.json.part"):
        (watched / name).symlink_to(victim)
    write_text(watched / "config.json", "{}")
    assert victim.read_text() == "mine"
    (watched / "plots").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="plots is a link that leads out of the run folder"):
        check_folder(watched, read_config(trained_run / "config.json"))
    victim.unlink()
