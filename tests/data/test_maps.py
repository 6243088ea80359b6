"""Masks and other dense labels as people store them give one label, or an error with the fix."""

import numpy as np
import pytest
from PIL import Image

from mtljax.build import load_source
from mtljax.config import Data, Experiment
from mtljax.data import from_arrays
from mtljax.tasks import Depth, Edges, Keypoints, Normals, Reconstruction, Segmentation

CLASSES = np.asarray([[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]])
VOC = ((0, 0, 0), (128, 0, 0), (0, 128, 0))


def write_folder(root, task, files, size=None, rows=None):
    """A folder with an image for each label file {name: function that writes it}."""
    (root / "images").mkdir(parents=True)
    lines = [f"image,{task.name},split"]
    for i, (name, write) in enumerate(files.items()):
        write(root / name)
        Image.new("RGB", size or (4, 3), (i, 0, 0)).save(root / "images" / f"{i}.png")
        lines.append(f"{i}.png,{name},{('train', 'train', 'val', 'test')[i % 4]}")
    (root / "labels.csv").write_text("\n".join(lines))
    data = Data(source=f"folder:{root}", batch_size=1)
    return Experiment(name="maps", tasks=(task,), data=data)


def palette(values):
    image = Image.fromarray(values.astype(np.uint8), "P")
    image.putpalette([value for color in VOC for value in color])
    return image


STORED = {
    "gray": lambda v: Image.fromarray(v.astype(np.uint8)),
    "palette": palette,
    "rgb": lambda v: Image.fromarray(np.stack([v] * 3, -1).astype(np.uint8)),
    "rgba": lambda v: Image.fromarray(np.stack([v] * 3 + [v * 0 + 255], -1).astype(np.uint8)),
    "la": lambda v: Image.fromarray(np.stack([v, v * 0 + 255], -1).astype(np.uint8), "LA"),
    "16 bits": lambda v: Image.fromarray(v.astype(np.uint16)),
    "1 bit": lambda v: Image.fromarray((255 * v).astype(np.uint8)).convert("1"),
}


def test_masks_of_one_data_set_may_differ_in_their_storage(tmp_path):
    files = {
        f"{kind}.{ending}": lambda path, kind=kind: STORED[kind](CLASSES).save(path)
        for kind in STORED
        for ending in (("png", "tif") if kind != "1 bit" else ("png", "bmp"))
    }
    files["classes.npy"] = lambda path: np.save(path, CLASSES)
    files["channel.npy"] = lambda path: np.save(path, CLASSES[..., None].astype(np.float32))
    task = Segmentation(name="mask", num_classes=2)
    source = load_source(write_folder(tmp_path / "data", task, files))
    masks = [mask for split in source.splits().values() for mask in split.labels["mask"]]
    assert len(masks) == len(files)
    for mask in masks:
        np.testing.assert_array_equal(mask, CLASSES)


@pytest.mark.parametrize("kind", ["gray", "rgb", "rgba", "16 bits"])
@pytest.mark.parametrize("settings", [{"ignore": None}, {"values": (0, 255)}])
def test_objects_stored_as_255_are_a_class_where_the_task_says_so(kind, settings, tmp_path):
    save = lambda path: STORED[kind](CLASSES * 255).save(path)
    files = {f"{i}.png": save for i in range(4)}
    task = Segmentation(name="mask", num_classes=2)
    with pytest.raises(ValueError, match=r"only the values 0 and 255.* set values=\(0, 255\)"):
        load_source(write_folder(tmp_path / "bad", task, files))
    task = Segmentation(name="mask", num_classes=2, **settings)
    source = load_source(write_folder(tmp_path / "good", task, files))
    np.testing.assert_array_equal(source.train.labels["mask"][0], CLASSES)


def test_masks_read_on_demand_are_checked_too(tmp_path):
    files = {f"{i}.png": lambda path: STORED["gray"](CLASSES * 255).save(path) for i in range(4)}
    task = Segmentation(name="mask", num_classes=2)
    experiment = write_folder(tmp_path / "data", task, files)
    data = Data(source=experiment.data.source, batch_size=1, keep_on_device="no")
    with pytest.raises(ValueError, match="only the values 0 and 255"):
        load_source(Experiment(name="maps", tasks=(task,), data=data))


@pytest.mark.parametrize("kind", ["rgb", "rgba", "palette"])
def test_colors_are_classes(kind):
    colors = np.asarray(VOC, np.uint8)[CLASSES * 2]
    if kind == "rgba":
        colors = np.concatenate([colors, np.full((3, 4, 1), 255, np.uint8)], -1)
    picture = palette(CLASSES * 2).convert("RGB") if kind == "palette" else colors
    task = Segmentation(name="mask", num_classes=3, colors=VOC)
    np.testing.assert_array_equal(task.parse(np.asarray(picture)), CLASSES * 2)
    other = np.asarray(picture).copy()
    other[0, :2, :3] = 224, 224, 192
    with pytest.raises(ValueError, match=r"2 pixels have color \(224, 224, 192\)"):
        task.parse(other)


def test_palette_files_with_colors_are_read_by_color(tmp_path):
    files = {f"{i}.png": lambda path: palette(CLASSES).save(path) for i in range(4)}
    swapped = Segmentation(name="mask", num_classes=3, colors=(VOC[1], VOC[0], VOC[2]))
    source = load_source(write_folder(tmp_path / "data", swapped, files))
    np.testing.assert_array_equal(source.train.labels["mask"][0], 1 - CLASSES)


def test_ignored_colors_are_ignored():
    border = ((224, 224, 192),)
    task = Segmentation(name="mask", num_classes=3, colors=VOC, ignored_colors=border)
    picture = np.asarray([[VOC[2], border[0]]], np.uint8)
    assert task.parse(picture).tolist() == [[2, 255]]
    with pytest.raises(ValueError, match="ignored_colors must be left out without `ignore`"):
        Segmentation(name="m", num_classes=3, ignore=None, colors=VOC, ignored_colors=border)


def test_values_and_ignored_pixels():
    task = Segmentation(name="mask", num_classes=3, values=(7, 11, 24))
    assert task.parse(np.asarray([[7, 24], [255, 11]])).tolist() == [[0, 2], [255, 1]]
    with pytest.raises(ValueError, match="the values 8 are not in `values`"):
        task.parse(np.asarray([[7, 8]]))
    with pytest.raises(ValueError, match="values must be one different entry for each of 3"):
        Segmentation(name="mask", num_classes=3, values=(0, 255))


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.asarray(VOC, np.uint8)[CLASSES], "a picture with colors.* set `colors`"),
        (np.stack([CLASSES] * 4, -1).astype(np.uint8), "the last one not opaque"),
        (np.zeros((2, 2, 5), np.uint8), r"an array of shape \(2, 2, 5\)"),
    ],
)
def test_a_picture_that_is_no_map_is_refused(picture, message):
    with pytest.raises(ValueError, match=message):
        Segmentation(name="mask", num_classes=2).parse(picture)


@pytest.mark.parametrize("task", [Segmentation(name="t", num_classes=2), Edges(name="t")])
def test_a_jpeg_as_a_mask_names_the_file(task, tmp_path):
    files = {f"{i}.jpg": lambda path: STORED["gray"](CLASSES).save(path) for i in range(4)}
    with pytest.raises(ValueError, match=r"\d.jpg: a JPEG.* save it as PNG"):
        load_source(write_folder(tmp_path / "data", task, files))


def test_a_jpeg_is_an_image_to_reconstruct(tmp_path):
    task = Reconstruction(name="t")
    save = lambda path: Image.new("RGB", (12, 12), "red").save(path)
    files = {f"{i}.{ending}": save for i, ending in enumerate(("jpg", "png", "tif", "bmp"))}
    source = load_source(write_folder(tmp_path / "data", task, files, size=(12, 12)))
    np.testing.assert_allclose(source.train.labels["t"][0, 0, 0], [1, 0, 0], atol=0.01)


@pytest.mark.parametrize(
    ("values", "threshold", "expected"),
    [
        (CLASSES.astype(np.uint8), None, CLASSES),
        (CLASSES.astype(bool), None, CLASSES),
        ((CLASSES * 255).astype(np.uint8), None, CLASSES),
        ((CLASSES * 65535).astype(np.uint16), None, CLASSES),
        (np.stack([CLASSES * 255] * 3, -1).astype(np.uint8), None, CLASSES),
        ((CLASSES * 200).astype(np.uint8), None, "the values 0, 200; must be 0 and 1, or 0 and"),
        (np.asarray([[0, 1, 255]], np.uint8), None, "the values 0, 1, 255; .* set threshold"),
        ((CLASSES * 200).astype(np.uint8), 128, CLASSES),
        (np.asarray([[127, 128]], np.uint8), 128, [[0, 1]]),
    ],
)
def test_binary_maps(values, threshold, expected):
    task = Edges(name="edges", threshold=threshold)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            task.parse(values)
    else:
        np.testing.assert_array_equal(task.parse(values), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_normals_as_colors_are_the_vectors(dtype):
    white = np.iinfo(dtype).max
    vectors = np.random.default_rng(0).normal(size=(6, 7, 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    colors = np.round((vectors + 1) / 2 * white).astype(dtype)
    found = Normals(name="n").parse(colors)
    np.testing.assert_allclose(found, vectors, atol=1.5 / white + 1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, rtol=1e-6)
    flipped = Normals(name="n", negated=("y", "z")).parse(colors)
    np.testing.assert_allclose(flipped, found * [1, -1, -1])
    np.testing.assert_allclose(
        Normals(name="n", negated=("y",)).parse(vectors), vectors * [1, -1, 1], rtol=1e-6
    )
    colors[0, 0], colors[0, 1], colors[0, 2] = 0, white // 2, white // 2 + 1
    assert (Normals(name="n").parse(colors)[0, :3] == 0).all()


def test_the_bits_of_depth_maps_are_their_unit_and_must_be_equal(tmp_path):
    files = {
        f"{i}.png": lambda path, i=i: Image.fromarray(
            np.full((3, 4), 9, np.uint8 if i == 1 else np.uint16)
        ).save(path)
        for i in range(4)
    }
    with pytest.raises(ValueError, match="1.png is an image of mode L, but that of row 2"):
        load_source(write_folder(tmp_path / "data", Depth(name="d"), files))


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_labels_have_the_pixels_of_the_file_even_if_it_is_decoded_smaller(ending, tmp_path):
    (tmp_path / "images").mkdir()
    lines = ["image,y,x,mask,split"]
    mask = np.zeros((160, 320), np.uint8)
    mask[:80, :160] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for i in range(4):
        Image.new("RGB", (320, 160)).save(tmp_path / "images" / f"{i}.{ending}")
        lines.append(f"{i}.{ending},80,240,mask.png,{('train', 'train', 'val', 'test')[i]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    tasks = (Keypoints(name="p", num_keypoints=1), Segmentation(name="mask", num_classes=2))
    data = Data(source=f"folder:{tmp_path},size=(16,32)", labels={"p": "y,x"}, batch_size=1)
    source = load_source(Experiment(name="e", tasks=tasks, data=data))
    assert source.train.labels["p"][0].tolist() == [[8, 24, 1]]
    expected = np.zeros((16, 32))
    expected[:8, :16] = 1
    np.testing.assert_array_equal(source.train.labels["mask"][0], expected)


def test_masks_that_store_objects_as_the_ignored_value_are_counted(tmp_path):
    """Among masks of 0 and 1, one of 0 and 255 has no labeled object."""
    for stored, count in (((1, 255, 1), 1), ((255, 1, 255), 2), ((1, 1, 1), 0)):
        mask = np.zeros((12, 4, 4), np.uint8)
        mask[:, :2] = np.resize(stored, 12)[:, None, None]
        source = from_arrays(np.zeros((12, 4, 4, 3), np.uint8), {"m": mask})
        for classes, expected in ((2, 4 * count), (3, 0)):
            task = Segmentation(name="m", num_classes=classes)
            experiment = Experiment(name="e", tasks=(task,), data=Data(source="arrays"))
            notes = load_source(experiment, source).notes
            assert sum(note.count for note in notes if note.kind == "warning") == expected
    empty = np.zeros((12, 4, 4), np.uint8)
    empty[::2] = 255
    empty[1::2] = 1
    task = Segmentation(name="m", num_classes=5)
    experiment = Experiment(name="e", tasks=(task,), data=Data(source="arrays"))
    source = from_arrays(np.zeros((12, 4, 4, 3), np.uint8), {"m": empty})
    (note,) = load_source(experiment, source).notes
    assert (note.what, note.count) == (
        "masks without a pixel that has a class of task 'm'",
        6,
    )
