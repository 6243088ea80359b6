"""Damaged annotation files: every example is read, or is a fault of one line; nothing else."""

import copy
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mtljax.data import make_source
from mtljax.data.base import LabelRequest
from mtljax.tasks import Detection, Keypoints, MultiLabel, Segmentation

H, W, N = 8, 12, 12
TASKS = (Detection(name="boxes"), Segmentation(name="masks"), MultiLabel(name="classes"))
POINTS = Keypoints(name="keypoints", num_keypoints=2)
HOSTILE = [
    None,
    True,
    "",
    "x",
    "../../etc/passwd",
    "\u0000",
    -1,
    0.5,
    2**40,
    10**400,
    float("nan"),
    float("inf"),
    -1e300,
    [],
    [[]],
    [1] * 5,
    {},
    {"a": 1},
]


def coco():
    square = [1, 1, 6, 1, 6, 6, 1, 6]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": H, "width": W} for i in range(N)],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 1 + i % 2,
                "bbox": [1, 1, 5, 5],
                "segmentation": [list(square)] if i % 3 else {"counts": [10, 20, 66]},
                "keypoints": [1, 2, 2, 3, 4, 1],
                "iscrowd": 0,
            }
            for i in range(N)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def paths(value, path=()):
    """Yields the path of every value in nested lists and dicts."""
    yield path
    if isinstance(value, dict):
        inside = value.items()
    else:
        inside = enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield from paths(part, (*path, key))


PATHS = [path for path in paths(coco()) if path]


def replaced(content, path, value):
    content = copy.deepcopy(content)
    part = content
    for key in path[:-1]:
        part = part[key]
    if value is KeyError:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for i in range(N):
        pixels = np.full((H, W, 3), 20 * i, np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
    return root


def one_line(message):
    assert 0 < len(message) < 600, message
    assert "\n" not in message
    assert "cannot be created" not in message, message  # by an exception of another type


def read_all(text, tasks):
    """Returns the number of examples that are read; all others must be errors of one line."""
    try:
        source = make_source(text, [LabelRequest(task, task.name) for task in tasks])
    except ValueError as error:
        one_line(str(error))
        return 0
    count = 0
    for split in source.splits().values():
        for i in range(len(split)):
            try:
                example = split[i]
            except ValueError as error:
                one_line(str(error))
                continue
            count += 1
            assert all(np.isfinite(x).all() for x in example["labels"].get("boxes", {}).values())
    for note in source.notes:
        one_line(str(note))
    return count


def check_coco(folder, path, value, tasks):
    content = replaced(coco(), path, value)
    (folder / "boxes.json").write_text(json.dumps(content))
    count = read_all(f"coco:'{folder}/boxes.json',images='{folder}'", tasks)
    if path[0] == "annotations" and len(path) > 2:
        assert count >= N - 2, (path, value)  # one image, and one with an id that is taken


@given(st.sampled_from(PATHS), st.sampled_from([*HOSTILE, KeyError]), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_damaged_coco_files(folder, path, value, has_points):
    check_coco(folder, path, value, (*TASKS, *([POINTS] * has_points)))


@pytest.mark.slow
@given(st.sampled_from(PATHS), st.sampled_from([*HOSTILE, KeyError]), st.booleans())
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
def test_damaged_coco_files_at_length(folder, path, value, has_points):
    check_coco(folder, path, value, (*TASKS, *([POINTS] * has_points)))


XML = (
    f"<annotation><size><width>{W}</width><height>{H}</height></size><object><name>cat</name>"
    "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>6</xmax><ymax>6</ymax></bndbox></object></annotation>"
)
TXT = "0 0.5 0.5 0.2 0.4\n1 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n"
EDITS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 30), st.text(max_size=8)), min_size=1, max_size=3
)


def edited(text, edits):
    for position, length, new in edits:
        position %= len(text) + 1
        text = text[:position] + new + text[position + length :]
    return text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    ("source", "suffix", "text"), [("voc", ".xml", XML), ("yolo", ".txt", TXT)]
)
@given(edits=EDITS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_damaged_text_files(folder, source, suffix, text, edits):
    for i in range(N):
        (folder / f"{i}{suffix}").write_text(text)
    (folder / f"3{suffix}").write_bytes(edited(text, edits))
    assert read_all(f"{source}:'{folder}'", (Detection(name="boxes", num_classes=0),)) >= N - 1


CONFIG = "path: .\ntrain: train\nval: val\nnames:\n  0: cat\n  1: dog\nkpt_shape: [2, 3]\nnc: 2\n"


@given(edits=EDITS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_damaged_data_yaml(folder, edits):
    for i in range(N):
        (folder / f"{i}.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (folder / "data.yaml").write_bytes(edited(CONFIG, edits))
    try:
        read_all(f"yolo:'{folder}/data.yaml'", (Detection(name="boxes"),))
    finally:
        (folder / "data.yaml").unlink()
