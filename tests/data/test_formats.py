"""The same images and labels in every format give the same training arrays and predictions."""

import jax
import numpy as np
import pytest
from support import formats
from support.contents import CONTENTS, SPLITS, TASKS, H, W, arrays_in_memory, label_of
from support.formats import FORMATS

import mtljax
from mtljax.build import build
from mtljax.config import Data, Experiment
from mtljax.data import make_source
from mtljax.data.base import Arrays, LabelRequest
from mtljax.data.pipeline import read_split
from mtljax.evaluation.evaluator import Evaluator
from mtljax.evaluation.predict_files import restored
from mtljax.evaluation.predictor import Predictor, read_inputs
from mtljax.parallel import place
from mtljax.runs.load import TrainedModel
from mtljax.tasks.warps import Resize, resize_image

RESIZED = (12, 24)
BATCH = {
    "image": np.zeros((len(CONTENTS), *RESIZED, 3), np.float32),
    "present": {name: np.zeros(len(CONTENTS), bool) for name in TASKS},
    "labels": {
        name: jax.tree.map(lambda x: np.stack([x] * len(CONTENTS)), task.placeholder(RESIZED))
        for name, task in TASKS.items()
    },
}
"""Images without labels."""


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), a, b)


def opened(make, root, size=None):
    text, keys = make(root)
    if size:
        text += f",size=({size[0]},{size[1]})"
    return make_source(text, [LabelRequest(TASKS[n], keys.get(n, n)) for n in FORMATS[make]])


def check(source, names, *, size=None, has_splits=True, has_missing=True):
    """Checks that a source has the content: every image once, with its labels."""
    resize = Resize(old=(H, W), size=size or (H, W))
    # Resized images of 8 bits are whole numbers; those of 16 bits keep the fractions.
    images = [
        resize_image(content["pixels"].astype(dtype), resize.size).astype(np.float32)
        for dtype in (np.uint8, np.float32)
        for content in CONTENTS
    ]
    seen = []
    for split, examples in source.splits().items():
        for example in map(examples.__getitem__, range(len(examples))):
            far = [abs(example["image"] - image).max() for image in images]
            content = CONTENTS[int(np.argmin(far)) % len(CONTENTS)]
            assert min(far) <= 1e-4
            seen.append(content["name"])
            assert not has_splits or split == SPLITS[content["split"]]
            for name in names:
                label = label_of(content, name)
                place = f"{name} of {content['name']}"
                if label is None and not has_missing and name == "keypoints":
                    assert not example["labels"][name][:, 2].any()
                    continue
                assert example["present"][name] == (label is not None), place
                if label is not None:
                    expected = TASKS[name].warp(label, resize)
                    compare = lambda a, b, at=place: np.testing.assert_allclose(
                        a, b, rtol=1e-6, atol=1e-6, err_msg=at
                    )
                    jax.tree.map(compare, example["labels"][name], expected)
                    same_type = lambda a, b: np.asarray(a).dtype == np.asarray(b).dtype
                    assert jax.tree.all(
                        jax.tree.map(same_type, example["labels"][name], expected)
                    ), place
    labeled = [c["name"] for c in CONTENTS if c["objects"]]
    assert sorted(seen) == sorted(labeled if names == ("kind",) else (c["name"] for c in CONTENTS))


@pytest.mark.parametrize("make", FORMATS)
def test_every_format_gives_the_same_arrays(make, tmp_path):
    check(
        opened(make, tmp_path),
        FORMATS[make],
        has_splits=make is not formats.npz,
        has_missing=make is not formats.tensorflow_datasets,
    )


@pytest.mark.parametrize("make", [make for make in FORMATS if make is not formats.npz])
def test_every_format_gives_the_same_arrays_of_another_size(make, tmp_path):
    is_tfds = make is formats.tensorflow_datasets
    check(opened(make, tmp_path, RESIZED), FORMATS[make], size=RESIZED, has_missing=not is_tfds)


def test_arrays_in_memory_are_those_of_the_formats():
    check(arrays_in_memory(), tuple(TASKS), has_splits=False)


def test_the_content_has_labels_of_every_kind():
    count = lambda task: sum(label_of(c, task) is not None for c in CONTENTS)
    missing = {"kind": 12, "keypoints": 6}
    assert {task: count(task) for task in TASKS} == {n: missing.get(n, 18) for n in TASKS}
    assert sum(len(content["objects"]) for content in CONTENTS) == 18
    assert set.union(*(set(names) for names in FORMATS.values())) == set(TASKS)


@pytest.fixture(scope="module")
def trained():
    """A model of all tasks, for images of another size than the files."""
    data = Data(source="folder:data", batch_size=len(CONTENTS))
    tasks, trunk = tuple(TASKS.values()), "cnn:widths=(4,)"
    experiment = Experiment(name="formats", tasks=tasks, data=data, trunk=trunk, steps=1)
    parts = build(experiment, mean=128.0, std=64.0)
    state = mtljax.create_state(
        jax.random.key(0), parts.model, tasks, parts.balancer, parts.optimizer, BATCH
    )
    random = np.random.default_rng(0)
    noise = lambda x: x + random.normal(scale=0.3, size=x.shape).astype(np.float32)
    state = state.replace(params=jax.tree.map(noise, state.params))
    return TrainedModel(experiment, parts.model, state, 1, (*RESIZED, 3), "uint8", 0.0, 255.0)


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor(trained)


@pytest.fixture(scope="module")
def evaluated(trained):
    """Function that returns the outputs of an evaluation of images, compiled once."""
    images, count = np.zeros_like(BATCH["image"]), len(CONTENTS)
    split, tasks = Arrays(**{**BATCH, "image": images}), trained.experiment.tasks[:1]
    evaluator = Evaluator(trained.model, tasks, split, count, place(count, 1), keep_on_device=False)

    def outputs(found):
        images[: len(found)] = found
        (batch,) = evaluator.predictions(trained.state)
        return jax.tree.map(lambda x: x[: len(found)], batch.outputs)

    return outputs


FILES = [
    make
    for make in FORMATS
    if make not in (formats.npz, formats.tensorflow_datasets, formats.parquet_with_images)
]


@pytest.mark.parametrize("make", FILES)
def test_predictions_for_the_files_are_those_of_evaluation(
    make, trained, predictor, evaluated, tmp_path
):
    source = opened(make, tmp_path, RESIZED)
    paths = [path for split in source.splits().values() for path in split.examples.images]
    assert {path.suffix for path in paths} >= {".tif", ".npy"}
    images = np.concatenate([read_split(split)["image"] for split in source.splits().values()])
    expected = evaluated(images)
    inputs, read = read_inputs(trained, paths)
    assert {item.error for item in inputs} == {""}
    outputs = predictor.outputs(read)
    close(outputs, expected)
    assert {item.size for item in inputs} == {(H, W)}


def test_predictions_are_mapped_to_the_pixels_of_the_files(trained, predictor, tmp_path):
    source = opened(formats.csv, tmp_path, RESIZED)
    paths = source.train.examples.images[:3]
    outputs = predictor.decode(predictor.outputs(read_split(source.train)["image"][:3]))
    found = mtljax.predict(trained, paths)
    for task in trained.experiment.tasks:
        for i in range(3):
            before, after = (
                jax.tree.map(lambda x, i=i: x[i], x[task.name]) for x in (outputs, found)
            )
            close(restored(task, before, RESIZED, (H, W)), after)
