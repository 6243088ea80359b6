"""Messages about damaged or hostile files: one short line, without the content of the file."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from mtljax import transfer
from mtljax.config import read_config
from mtljax.data import make_source
from mtljax.data.base import LabelRequest
from mtljax.data.droplist import read_drop_list
from mtljax.data.files.images import image_size, read_image, read_label_map
from mtljax.main import main
from mtljax.tasks import Classification, Detection, Segmentation
from mtljax.utils.bounded_reading import read_json
from mtljax.utils.text import first_line, quoted

WORD = "PRIVATE "
LONG = WORD * 400
KIND = [LabelRequest(Classification(name="a", num_classes=2), "a")]


def check_message(call, path):
    """Calls a function that must refuse a file."""
    with pytest.raises(ValueError, match=".") as caught:
        call()
    message = str(caught.value).replace(str(path), "FILE")
    assert "\n" not in message
    assert message.count(WORD) * len(WORD) <= 60, message
    assert len(message) <= 330


def npy(header):
    data = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(data)) + data + bytes(100)


HEADERS = {
    "text": LONG,
    "list": repr([LONG]),
    "keys": f"{{'descr': '<f4', 'fortran_order': False, 'shape': (2,), '{LONG}': 1}}\n",
    "type": f"{{'descr': '{LONG}', 'fortran_order': False, 'shape': (2,)}}\n",
    "shape": f"{{'descr': '<f4', 'fortran_order': False, 'shape': '{LONG}'}}\n",
    "order": f"{{'descr': '<f4', 'fortran_order': '{LONG}', 'shape': (2,)}}\n",
    "fields": f"{{'descr': [('{LONG}', '<f4')], 'fortran_order': False, 'shape': (2,)}}\n",
    "unfinished": f"{{'descr': '<f4'\0{LONG}",
}


@pytest.mark.parametrize("header", HEADERS)
def test_headers_of_arrays(header, tmp_path):
    file, archive = tmp_path / "a.npy", tmp_path / "a.npz"
    file.write_bytes(npy(HEADERS[header]))
    check_message(lambda: read_image(file, 3), file)
    check_message(lambda: image_size(file), file)
    task = Segmentation(name="m", num_classes=2)
    check_message(lambda: task.parse(read_label_map(task, file)), file)
    with zipfile.ZipFile(archive, "w") as opened:
        for name in ("image", "a"):
            opened.writestr(f"{name}.npy", npy(HEADERS[header]))
    check_message(lambda: make_source(f"arrays:file='{archive}'", KIND), archive)


def test_names_in_archives(tmp_path):
    file = tmp_path / "a.npz"
    with zipfile.ZipFile(file, "w") as opened:
        for name in ("image", LONG, *(f"{WORD}{i}" for i in range(200))):
            data = io.BytesIO()
            np.save(data, np.zeros((40, 2, 2, 1)))
            opened.writestr(f"{name}.npy", data.getvalue())
    with pytest.raises(ValueError, match="no labels 'a'") as caught:
        make_source(f"arrays:file='{file}'", KIND)
    assert len(str(caught.value)) < 1300
    content = bytearray(file.read_bytes())
    content[45:60] = b"X" * 15
    file.write_bytes(content)
    check_message(lambda: make_source(f"arrays:file='{file}'", KIND), file)


STARTS = {
    "png": b"\x89PNG\r\n\x1a\n",
    "jpg": b"\xff\xd8\xff\xe0",
    "tif": b"II*\0",
    "gif": b"GIF89a",
    "bmp": b"BM",
    "webp": b"RIFF\0\x10\0\0WEBP",
    "npy": b"\x93NUMPY",
}


@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize("has_start", [True, False])
def test_images(kind, has_start, tmp_path):
    file = tmp_path / f"a.{kind}"
    file.write_bytes((STARTS[kind] if has_start else b"") + LONG.encode())
    check_message(lambda: read_image(file, 3), file)
    check_message(lambda: image_size(file), file)


def config(**fields):
    tasks = [{"task": "regression", "name": "a"}]
    return {"name": "e", "tasks": tasks, "data": {"source": "arrays", "batch_size": 8}, **fields}


CONFIGS = {
    "no json": LONG,
    "array": [LONG],
    "tasks": config(tasks=LONG),
    "task": config(tasks=[LONG]),
    "kind": config(tasks=[{"task": LONG, "name": "a"}]),
    "file": config(tasks=[{"task": f"file:{LONG}#X", "name": "a"}]),
    "module": config(tasks=[{"task": f"{LONG.replace(' ', '')}:X", "name": "a"}]),
    "number": config(steps=LONG),
    "nested": config(steps=[[LONG] * 9] * 99),
    "data": config(data=LONG),
    "batch size": config(data={"source": "arrays", "batch_size": [LONG] * 99}),
    "same names": config(tasks=[{"task": "regression", "name": LONG}] * 2),
    "deep": "[" * 10**5,
    "long number": '{"name": ' + "9" * 5000 + "}",
    "binary": bytes(range(256)) * 9,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations(name, tmp_path):
    file, content = tmp_path / "config.json", CONFIGS[name]
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    if name == "file":  # the path of a file is not its content, and is shortened
        with pytest.raises(ValueError, match="does not exist") as caught:
            read_config(file)
        assert len(str(caught.value)) < 500
    else:
        check_message(lambda: read_config(file), file)


@pytest.mark.parametrize(
    "content", [LONG, {LONG: LONG}, {"split": LONG, "row": LONG}, {"split": "test", "row": [LONG]}]
)
def test_drop_lists(content, tmp_path):
    file = tmp_path / "drop.jsonl"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    check_message(lambda: read_drop_list(file), file)


def safetensors(header):
    data = json.dumps(header).encode() if isinstance(header, dict) else header
    return struct.pack("<Q", len(data)) + data + bytes(4)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.safetensors", LONG.encode()),
        ("a.safetensors", safetensors(LONG.encode())),
        ("a.safetensors", safetensors({LONG: {"dtype": LONG, "shape": [1], "data_offsets": 4}})),
        ("a.safetensors", safetensors({"x": {"dtype": "F32", "shape": LONG}})),
        ("a.pth", LONG.encode()),
        ("a.pth", b"PK\x03\x04" + LONG.encode()),
        ("a.pth", b"\x80\x04\x95" + LONG.encode()),
    ],
)
def test_weights(name, content, tmp_path):
    file = tmp_path / name
    file.write_bytes(content)
    check_message(lambda: transfer.read(transfer.locate(str(file))), file)


COCO = {"images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}]}
COCO |= {"annotations": [], "categories": [{"id": 1, "name": "x"}]}


@pytest.mark.parametrize(
    "content",
    [
        LONG,
        [LONG],
        {**COCO, "images": LONG},
        {**COCO, "images": [LONG]},
        {**COCO, "images": [{"id": 1, "file_name": [LONG] * 9, "height": 8, "width": 8}]},
        {**COCO, "annotations": [{"image_id": LONG, "bbox": LONG, "category_id": LONG}]},
        {**COCO, "annotations": [{"image_id": 1, "bbox": [LONG] * 99, "category_id": 1}]},
        {**COCO, "annotations": [{"image_id": 1, "bbox": [1, 1, 2, 2], "category_id": LONG}]},
    ],
)
def test_coco_files(content, tmp_path):
    (tmp_path / "images").mkdir()
    file = tmp_path / "instances.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    requests = [LabelRequest(Detection(name="boxes", num_classes=1), "boxes")]
    check_message(lambda: make_source(f"coco:{tmp_path}", requests), tmp_path)


ITEM = "<annotation><object><name>x</name>{}</object></annotation>"


@pytest.mark.parametrize(
    "content",
    [
        LONG,
        f"<annotation>{LONG}",
        f"<{LONG}/>",
        ITEM.format(f"<bndbox><xmin>{LONG}</xmin></bndbox>"),
        ITEM.format(f"<{WORD.strip()}>{LONG}</{WORD.strip()}>"),
        f"<annotation><object><name>{LONG}</name></object></annotation>",
        f"<annotation><size><width>{LONG}</width></size><object/></annotation>",
    ],
)
def test_voc_files(content, tmp_path):
    for i in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.xml").write_text(content)
    requests = [LabelRequest(Detection(name="boxes", class_names=("x",)), "boxes")]
    check_message(lambda: make_source(f"voc:{tmp_path}", requests), tmp_path)


@pytest.mark.parametrize("label", [LONG, f"0 {LONG}", f"{WORD.strip()} 0.5 0.5 0.2 0.2", "\0" * 99])
@pytest.mark.parametrize(
    "content", [f"a: b: {LONG}", f"{{{LONG}", f"*{LONG}", LONG, f"names: {LONG}", "names: [x]"]
)
def test_yolo_files(content, label, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for i in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{i}.png")
        (tmp_path / "labels" / f"{i}.txt").write_text(label)
    (tmp_path / "data.yaml").write_text(content)
    requests = [LabelRequest(Detection(name="boxes", class_names=("x",)), "boxes")]
    check_message(lambda: make_source(f"yolo:{tmp_path}", requests), tmp_path)


@pytest.mark.parametrize("kind", ["text", "gz", "header"])
def test_idx_files(kind, tmp_path):
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        start = {"text": b"", "gz": b"\x1f\x8b", "header": b"\0\0\x08\x03"}[kind]
        file = tmp_path / f"{name}-ubyte{'.gz' if kind == 'gz' else ''}"
        file.write_bytes(start + LONG.encode())
    requests = [LabelRequest(Classification(name="class", num_classes=2), "class")]
    check_message(lambda: make_source(f"idx:{tmp_path}", requests), tmp_path)


def test_the_message_of_a_library_is_one_short_line(tmp_path):
    assert first_line(KeyError()) == "KeyError"
    assert first_line(ValueError("a\x1b[31m\nb")) == r"a\x1b[31m"
    assert len(first_line(ValueError(LONG))) == 200
    assert len(quoted([LONG] * 10**6)) == 60
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a.json is not valid JSON: Expecting property name"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--init", LONG],
        ["--data.source", LONG],
        ["--data.source", f"folder:{LONG}"],
        ["--data.drop", LONG.replace(" ", "/")],
        ["--workdir", LONG],
        ["--workdir", "\0"],
        ["--trunk", f"cnn:{LONG}=3"],
        ["--steps", LONG],
        ["--balancer", LONG],
    ],
)
def test_long_arguments_are_errors_of_one_line(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--experiment", "digits", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith("mtljax: ")
    assert error.count("\n") == 1
    assert len(error) <= 1010
