"""Rendered scenes: labels are exact, images are functions of (seed, split, index) alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.scenes_reference import first_hits, is_inside, rays, surface_points

from mtljax import tasks
from mtljax.data import SOURCES, LabelRequest
from mtljax.data.pipeline import read_batch, read_split
from mtljax.data.scenes import CLASSES, KINDS, ROOM_TYPES, draw_scene
from mtljax.data.scenes.labels import SMALLEST, make_labels
from mtljax.data.scenes.objects import KIND_OF_OBJECT, KIND_OF_SOLID, OBJECTS, SOLIDS
from mtljax.data.scenes.raycasting import ray_directions, trace
from mtljax.data.scenes.scene import AHEAD, FLOOR
from mtljax.data.sources import make_source
from mtljax.data.sources.scenes import MEAN, STD, scenes

SIZE, COUNT = 32, 32
TASKS = (
    tasks.Segmentation(name="segmentation", num_classes=len(CLASSES), class_names=CLASSES),
    tasks.Depth(name="depth"),
    tasks.Normals(name="normals"),
    tasks.Edges(name="edges"),
    tasks.Saliency(name="saliency"),
    tasks.Detection(name="objects", num_classes=len(KINDS)),
    tasks.Keypoints(name="centers", num_keypoints=len(KINDS)),
    tasks.MultiLabel(name="kinds", num_classes=len(KINDS)),
    tasks.Regression(name="counts", size=len(KINDS)),
    tasks.Regression(name="light", size=3),
    tasks.Classification(name="room", num_classes=len(ROOM_TYPES)),
    tasks.Reconstruction(name="image", peak=255.0),
)


@pytest.fixture(scope="module")
def source():
    return scenes(size=SIZE, train=COUNT, validation=16, test=16)


@pytest.fixture(scope="module")
def batch(source):
    return read_split(source.train)


@functools.partial(jax.jit, static_argnums=1)
def look(keys, size):
    def one(key):
        scene = draw_scene(key)
        middle = jnp.arange(size) + 0.5
        hits = trace(scene, ray_directions(scene.camera, middle, middle, size))
        return scene, hits, make_labels(scene, hits, size)

    return jax.vmap(one)(keys)


@pytest.fixture(scope="module")
def seen():
    """(scene, hits, labels) of some scenes, one by one, as NumPy arrays."""
    found = jax.device_get(look(jax.random.split(jax.random.key(7), 16), SIZE))
    return [jax.tree.map(lambda x, i=i: x[i], found) for i in range(16)]


@pytest.mark.full
def test_depth_is_where_rays_meet_the_surfaces(seen):
    """In 32 bits all but silhouettes, where a ray only just touches, are right to 1e-4."""
    wrong, errors = 0, []
    for scene, hits, _ in seen:
        surface, depth = first_hits(scene, rays(scene.camera, SIZE))
        same = surface == hits.surface
        wrong += (~same).sum()
        errors.append(np.abs(hits.depth - depth)[same] / depth[same])
    errors = np.concatenate(errors)
    assert wrong <= 1e-3 * len(seen) * SIZE**2
    assert np.quantile(errors, 0.999) < 1e-5
    assert errors.max() < 1e-3


@pytest.mark.full
def test_normals_have_length_one_and_face_the_camera(batch):
    normals = batch["labels"]["normals"].astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)


def test_normals_are_those_of_the_depth(seen):
    """By central differences of the points that depth stands for, inside of faces."""
    flat, curved = [], []
    for scene, _, labels in seen:
        middle = 2 * (np.arange(SIZE) + 0.5) / SIZE - 1
        slope = float(scene.camera.slope)
        x, y = np.meshgrid(slope * middle, -slope * middle)
        points = labels["depth"][..., None] * np.stack([x, y, -np.ones_like(x)], -1)
        right, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        normal = np.cross(down, right)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        label = labels["normals"][1:-1, 1:-1]
        assert ((label * points[1:-1, 1:-1]).sum(-1) < 1e-4).all()
        angle = np.rad2deg(np.arccos(np.clip((normal * label).sum(-1), -1, 1)))
        edge = labels["edges"]
        whole = sum(edge[i : i + SIZE - 2, j : j + SIZE - 2] for i in (0, 1) for j in (0, 1)) == 0
        whole &= (edge[:-2, 2:] == 0) & (edge[2:, :-2] == 0)  # corners whose edge points away
        classes = labels["segmentation"][1:-1, 1:-1]
        round_ = np.isin(classes, [CLASSES.index(k) for k in ("sphere", "cylinder", "cone")])
        flat.append(angle[whole & ~round_])
        curved.append(angle[whole & round_])
    flat, curved = np.concatenate(flat), np.concatenate(curved)
    assert len(flat) > 5000
    assert len(curved) > 100
    assert flat.max() < 0.1
    assert np.median(curved) < 1.5  # a difference over two pixels of something round


def test_boxes_are_tight_around_what_is_seen(seen):
    boxes_seen = 0
    for _, hits, labels in seen:
        surface = hits.surface.reshape(SIZE, SIZE)
        boxes, classes = labels["objects"]["boxes"], labels["objects"]["classes"]
        for i in range(OBJECTS):
            y, x = np.nonzero(surface == i)
            if len(y) < SMALLEST * SIZE**2:
                assert classes[i] == -1
                continue
            boxes_seen += 1
            assert classes[i] == KIND_OF_OBJECT[i]
            assert boxes[i].tolist() == [y.min(), x.min(), y.max() + 1, x.max() + 1]
    assert boxes_seen > 30


def test_segmentation_is_of_the_surface_that_is_seen(seen):
    for scene, hits, labels in seen:
        surface, found = hits.surface.reshape(SIZE, SIZE), labels["segmentation"]
        for kind, name in enumerate(KINDS):
            of_kind = np.isin(surface, np.flatnonzero(kind == KIND_OF_OBJECT))
            np.testing.assert_array_equal(found == CLASSES.index(name), of_kind)
        np.testing.assert_array_equal(found == CLASSES.index("floor"), surface == SOLIDS + FLOOR)
        glass = found == CLASSES.index("window")
        assert (surface[glass] == SOLIDS + scene.window.wall).all()


def test_edges_part_whatever_differs(seen):
    for _, hits, labels in seen:
        edges, classes = labels["edges"] == 1, labels["segmentation"]
        surface = hits.surface.reshape(SIZE, SIZE)
        for shown in (classes, surface):
            assert edges[:, :-1][shown[:, :-1] != shown[:, 1:]].all()
            assert edges[:-1][shown[:-1] != shown[1:]].all()
        normals = labels["normals"]
        bend = (normals[:, :-1] * normals[:, 1:]).sum(-1)
        flat = ~np.isin(classes, [CLASSES.index(k) for k in ("sphere", "cylinder", "cone")])
        assert (bend[~edges[:, :-1] & flat[:, :-1]] > 0.999).all()


def test_one_object_is_salient(seen):
    for _, hits, labels in seen:
        salient = labels["saliency"] == 1
        objects = np.unique(hits.surface.reshape(SIZE, SIZE)[salient])
        assert len(objects) == (labels["counts"].sum() > 0)
        for i in objects:
            np.testing.assert_array_equal(salient, hits.surface.reshape(SIZE, SIZE) == i)


def test_centers_are_where_the_largest_object_of_a_kind_has_its_middle(seen):
    found = 0
    for scene, hits, labels in seen:
        area = np.bincount(hits.surface, minlength=OBJECTS)[:OBJECTS]
        for kind, (y, x, visible) in enumerate(labels["centers"]):
            if not visible:
                continue
            found += 1
            own = np.flatnonzero(kind == KIND_OF_OBJECT)
            middle = scene.solids.center[own[area[own].argmax()]].astype(np.float64)
            slope = float(scene.camera.slope)
            local = [slope * (2 * x / SIZE - 1), slope * (1 - 2 * y / SIZE), -1]
            ray = np.asarray(local) @ scene.camera.axes
            away = middle - scene.camera.position
            beside = away - (away @ ray) / (ray @ ray) * ray
            assert np.linalg.norm(beside) < 1e-4 * np.linalg.norm(away)
    assert found > 20


def test_the_light_comes_from_the_lamp(seen):
    for scene, _, labels in seen:
        ahead = -scene.camera.axes[2] * [1, 1, 0]
        foot = scene.camera.position * [1, 1, 0] + AHEAD * ahead / np.linalg.norm(ahead)
        lamp = scene.lights.position[0]
        shown = labels["light"] @ scene.camera.axes
        np.testing.assert_allclose(foot + shown * np.linalg.norm(lamp - foot), lamp, atol=1e-4)


def test_counts_kinds_and_boxes_agree(batch):
    classes = batch["labels"]["objects"]["classes"]
    counts = np.stack([(classes == kind).sum(1) for kind in range(len(KINDS))], 1)
    np.testing.assert_array_equal(batch["labels"]["counts"], counts)
    np.testing.assert_array_equal(batch["labels"]["kinds"], counts > 0)


def parts(scene):
    solids = scene.solids
    for i in np.flatnonzero(solids.exists):
        yield i, KINDS[KIND_OF_SOLID[i]], (solids.center[i], solids.axes[i], solids.size[i])


def test_everything_stands_on_the_floor_or_on_the_table(seen):
    for scene, *_ in seen:
        top = scene.solids.center[OBJECTS, 2] + scene.solids.size[OBJECTS, 2]
        for i, kind, frame in parts(scene):
            lowest = surface_points(kind, *frame)[:, 2].min()
            if i != OBJECTS:  # the table's top itself
                assert min(abs(lowest), abs(lowest - top)) < 2e-3, (kind, lowest, top)


def test_nothing_is_inside_of_anything_else(seen):
    for scene, *_ in seen:
        room = scene.room
        for i, kind, frame in parts(scene):
            points = surface_points(kind, *frame)
            assert (points @ room.normal.T <= room.offset + 1e-2).all(), kind
            for j, other, its in parts(scene):
                if i != j and not (i >= OBJECTS and j >= OBJECTS):
                    assert not is_inside(other, points, *its, margin=0.02).any(), (kind, other)


def test_an_image_is_the_same_in_any_company(source, batch):
    again = read_batch(source.train, np.array([5, 31, 0, 5]))
    alone = source.train[31]
    for both in ((again["image"][1], alone["image"]), (again["image"][0], again["image"][3])):
        np.testing.assert_array_equal(*both)
    for name in batch["labels"]:
        pick = lambda tree, i, name=name: jax.tree.leaves(
            jax.tree.map(lambda x: x[i], tree["labels"][name])
        )
        for whole, part in zip(pick(batch, [5, 31, 0, 5]), pick(again, slice(None)), strict=True):
            np.testing.assert_array_equal(whole, part)


def test_no_image_comes_twice_in_any_split_or_seed(source, batch):
    other = scenes(size=SIZE, train=16, validation=1, test=1, seed=1)
    images = [batch["image"]] + [
        read_split(split)["image"] for split in (source.validation, source.test, other.train)
    ]
    rows = [image.tobytes() for images in images for image in images]
    assert len(set(rows)) == len(rows) == COUNT + 3 * 16


@pytest.mark.full
def test_a_scene_is_the_same_at_any_size(batch):
    larger = scenes(size=2 * SIZE, train=COUNT).train.take(np.arange(2))
    for name in ("light", "room"):
        np.testing.assert_array_equal(larger["labels"][name], batch["labels"][name][:2])
    small = larger["image"].reshape(2, SIZE, 2, SIZE, 2, 3).mean((2, 4))
    assert np.abs(small - batch["image"][:2]).mean() < 12  # of 255: noise, and what is at edges


def test_images_are_neither_dark_nor_bright(batch):
    """The tolerance is about three standard errors of the mean over so few images."""
    images = batch["image"].astype(np.float64)
    assert batch["image"].dtype == np.uint8
    assert (np.abs(images.mean((1, 2, 3)) - 128) < 70).all()
    assert (images.std((1, 2, 3)) > 12).all()
    np.testing.assert_allclose(images.mean((0, 1, 2)), MEAN, atol=10)
    np.testing.assert_allclose(images.std((0, 1, 2)), STD, atol=8)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_its_task_accepts_the_label(task, batch):
    task.check(batch["labels"][task.name])
    assert batch["present"][task.name].all()


def test_there_is_a_task_for_every_label(batch):
    assert set(batch["labels"]) == {task.name for task in TASKS}


def test_labels_that_are_not_wanted_are_left_out():
    made = make_source(
        f"scenes:size={SIZE},train=2,validation=1,test=1", [LabelRequest(TASKS[1], "depth")]
    )
    batch = read_batch(made.train, np.arange(2))
    assert set(batch["labels"]) == set(batch["present"]) == {"depth"}


@pytest.mark.parametrize(
    "arguments",
    [{"size": 31}, {"size": 513}, {"train": 0}, {"validation": -1}, {"test": 2**31}, {"seed": -1}],
)
def test_impossible_arguments_are_told(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        SOURCES["scenes"](**arguments)


def test_there_is_no_image_beyond_the_last(source):
    with pytest.raises(IndexError, match="image 32 of 32"):
        source.train[COUNT]


@pytest.mark.slow
@pytest.mark.parametrize("size", [65, 128, 256, 512])
def test_any_size_can_be_rendered(size):
    example = scenes(size=size).test[3]
    assert example["image"].shape == (size, size, 3)
    depth = example["labels"]["depth"]
    assert depth.shape == (size, size)
    assert np.isfinite(depth).all()
    assert depth.min() > 0.1
