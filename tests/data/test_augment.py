"""Augmentation: a pure function of keys and a batch, in which labels follow the image.

What is in a label is also painted into the image, so that after the augmentation the truth can be
read off the image again.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.data import AUGMENTATIONS, make_augment
from mtljax.data.augment import affine, crop, cutmix, flip, mixup
from mtljax.tasks import (
    Classification,
    Depth,
    Detection,
    Edges,
    Keypoints,
    MultiLabel,
    Normals,
    Reconstruction,
    Regression,
    Segmentation,
)
from mtljax.tasks.warps import Turn

B, H, W = 6, 24, 32
KEYS = jax.random.split(jax.random.key(0), B)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 16, (B, 8, 9, 2)).astype(np.float32)
DIGIT = Classification(name="digit", num_classes=10)
FLIPS = ["flip", "flip:vertical=true"]
MOVES = [*FLIPS, "shift:pixels=3", "crop", "affine:shift=2,rotate=30,zoom=0.2"]
PLAIN = ["jitter", "blur", "cutout"]


def batch(image=IMAGES, **labels):
    labels = labels or {"digit": np.arange(len(image), dtype=np.int32)}
    present = {name: np.ones(len(image), bool) for name in labels}
    return {"image": image, "labels": labels, "present": present}


def moved(text, task, image, label, keys=KEYS):
    augment = make_augment([text], [task])
    made = jax.jit(augment)(keys, batch(image, **{task.name: label}))
    return np.asarray(made["image"]), jax.tree.map(np.asarray, made["labels"][task.name])


def blocks(values, size=(H, W), side=8):
    """[B, H, W] of constant squares, each of a random value."""
    grid = RNG.choice(values, (B, -(-size[0] // side), -(-size[1] // side)))
    return grid.repeat(side, 1).repeat(side, 2)[:, : size[0], : size[1]]


@pytest.mark.parametrize("text", [*MOVES, *PLAIN])
def test_an_example_depends_on_its_key_and_nothing_else(text):
    augment = jax.jit(make_augment([text], [DIGIT]))
    whole = augment(KEYS, batch())["image"]
    np.testing.assert_array_equal(whole, augment(KEYS, batch())["image"])
    backwards = augment(KEYS[::-1], batch(IMAGES[::-1]))["image"]
    # Another order of the batch vectorizes differently: the same to rounding.
    np.testing.assert_allclose(backwards[::-1], whole, atol=1e-5)
    other = augment(jax.random.split(jax.random.key(1), B), batch())["image"]
    assert np.abs(other - whole).max() > 0.1


@pytest.mark.parametrize(
    "text",
    [
        *("flip:share=0", "shift:pixels=0", "crop:zooms=(1,)", "affine:shift=0,rotate=0,zoom=0"),
        *("jitter:brightness=0,contrast=0,saturation=0", "blur:sigma=0", "blur:share=0"),
        *("cutout:side=0", "cutout:share=0"),
    ],
)
def test_no_strength_changes_nothing(text):
    still = make_augment([text], [DIGIT])(KEYS, batch())
    np.testing.assert_allclose(still["image"], IMAGES, atol=1e-5)


@pytest.mark.parametrize("text", [*AUGMENTATIONS])
def test_types_and_shapes_stay(text):
    augment = make_augment([text], [DIGIT]) or (lambda keys, batch: batch)
    made = augment(KEYS, batch(IMAGES.astype(np.uint8)))
    assert made["image"].dtype == np.uint8
    assert made["image"].shape == IMAGES.shape
    if text not in ("mixup", "cutmix"):
        np.testing.assert_array_equal(made["labels"]["digit"], np.arange(B))


@pytest.mark.parametrize("text", [*MOVES, "blur", "cutout", "mixup", "cutmix"])
def test_pixels_stay_between_the_darkest_and_the_brightest(text):
    made = make_augment([text], [DIGIT])(KEYS, batch())["image"]
    assert made.min() >= IMAGES.min() - 1e-4
    assert made.max() <= IMAGES.max() + 1e-4


@pytest.mark.parametrize("text", MOVES)
def test_masks_follow_the_image(text):
    task = Segmentation(name="mask", num_classes=5, ignore=255)
    label = blocks(np.arange(5)).astype(np.int32)
    image, label = moved(text, task, label[..., None].astype(np.float32), label)
    truth, known = np.round(image[..., 0]), label != 255
    clear = np.abs(image[..., 0] - truth) < 1e-3  # not between two blocks
    assert (clear & known).mean() > 0.5
    np.testing.assert_array_equal(label[clear & known], truth[clear & known])
    assert known.mean() > 0.6
    if not text.startswith(("affine", "shift")):
        assert known.all()  # nothing comes in from outside


@pytest.mark.parametrize("text", MOVES)
@pytest.mark.parametrize("across", [0, 1])
def test_edges_follow_the_image_to_the_pixel(text, across):
    """Between two stripes the image has values between 0 and 1, and the label the nearer one."""
    stripes = blocks([0, 1], side=4)
    stripes = stripes[:, :1] if across else stripes[:, :, :1]
    label = np.broadcast_to(stripes, (B, H, W)).astype(np.int32)
    image, label = moved(text, Edges(name="edges"), label[..., None].astype(np.float32), label)
    clear = np.abs(image[..., 0] - 0.5) > 1e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(label[clear], np.round(image[..., 0])[clear])


@pytest.mark.parametrize("text", MOVES)
def test_reconstructions_follow_the_image(text):
    task = Reconstruction(name="again")
    image = RNG.uniform(0, 1, (B, H, W, 3)).astype(np.float32)
    made, label = moved(text, task, image, image)
    np.testing.assert_array_equal(made, label)


@pytest.mark.parametrize("text", MOVES)
def test_depths_follow_the_image_and_what_is_larger_is_nearer(text):
    task = Depth(name="depth")
    depth = blocks(np.linspace(1, 5, 9)).astype(np.float32)
    image, label = moved(text, task, depth[..., None], depth)
    for picture, map in zip(image[..., 0], label, strict=True):
        known = map > 0
        zoom = np.median(picture[known] / map[known])
        clear = known & (np.abs(picture / zoom - map) < 1e-3)
        assert clear.sum() > 0.6 * known.sum()
        if text == "crop":
            assert zoom == pytest.approx(1.0) or zoom > 1.15
        if text.startswith(("flip", "shift")):
            assert zoom == pytest.approx(1.0)


def test_depth_is_divided_by_one_of_the_zooms():
    flat = np.full((60, 8, 8), 6.0, np.float32)
    keys = jax.random.split(jax.random.key(3), 60)
    _, label = moved("crop", Depth(name="depth"), flat[..., None], flat, keys)
    assert set(np.unique(label.round(4))) == {6.0, 5.0, 4.0}


@pytest.mark.parametrize("text", MOVES)
@pytest.mark.parametrize("y_up", [True, False])
def test_normals_are_those_of_the_moved_surface(text, y_up):
    """The height of a plane is painted; what is its slope after the move?"""
    slopes = RNG.normal(size=(B, 2)).astype(np.float32)
    y, x = np.indices((H, W)).astype(np.float32)
    height = slopes[:, :1, None] * x + slopes[:, 1:, None] * y
    down = np.array([1, -1 if y_up else 1], np.float32)  # of (x, y)
    normal = np.concatenate([-slopes * down, np.ones((B, 1), np.float32)], 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    label = np.broadcast_to(normal[:, None, None], (B, H, W, 3))
    task = Normals(name="normals", y_up=y_up)
    image, label = moved(text, task, height[..., None], label)
    for picture, map in zip(image[..., 0], label, strict=True):
        at = slice(10, 14), slice(14, 18)  # the middle: the image's edge is far
        dy, dx = (d[at].mean() for d in np.gradient(picture))
        found = map[at].reshape(-1, 3).mean(0)
        # A zoom makes the slope of a painted height less; the direction within the image stays.
        seen = -down * [dx, dy]
        np.testing.assert_allclose(
            found[:2] / np.linalg.norm(found[:2]), seen / np.linalg.norm(seen), atol=1e-3
        )
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-4)


def painted_points(label):
    """A bell at each point, in a channel of its own."""
    y, x = np.indices((H, W)).astype(np.float32) + 0.5
    away = (y - label[:, :, :1, None]) ** 2 + (x - label[:, :, 1:2, None]) ** 2
    return np.moveaxis(np.exp(-away / 8), 1, -1)


@pytest.mark.parametrize("text", MOVES)
@pytest.mark.parametrize("pairs", [(), ((0, 1),)])
def test_points_are_where_they_are_seen(text, pairs):
    task = Keypoints(name="points", num_keypoints=3, pairs=pairs)
    label = np.ones((B, 3, 3), np.float32)
    label[..., :2] = RNG.uniform((6, 6), (H - 6, W - 6), (B, 3, 2))
    image, made = moved(text, task, painted_points(label), label)
    flipped = np.array([not np.allclose(a, b) for a, b in zip(made, label, strict=True)])
    seen = 0
    for picture, points, mirrored in zip(image, made, flipped, strict=True):
        for i, (y, x, visible) in enumerate(points):
            swap = pairs and text in FLIPS and mirrored
            bell = picture[..., [1, 0, 2][i] if swap else i]
            if not visible or min(y, x, H - y, W - x) < 3:
                continue
            seen += 1
            peak = np.unravel_index(bell.argmax(), bell.shape)
            assert np.abs(np.array(peak) + 0.5 - (y, x)).max() < 1.01
    assert seen > B
    if text in FLIPS:
        assert 0 < flipped.sum() < B


def test_points_that_leave_the_image_are_not_visible_and_as_before_otherwise():
    task = Keypoints(name="points", num_keypoints=2)
    label = np.tile(np.array([[[1.0, 1.0, 1.0], [12.0, 16.0, 1.0]]], np.float32), (B, 1, 1))
    _, made = moved("crop:zooms=(1.9,)", task, painted_points(label), label)
    assert (made[:, 0, 2] == 0).sum() > B / 2  # the corner is mostly cut off
    task.check(made)


@pytest.mark.parametrize("text", [*FLIPS, "shift:pixels=3", "crop", "affine:rotate=0,zoom=0.2"])
def test_boxes_are_around_what_they_were_around(text):
    task = Detection(name="boxes", num_classes=2, most=3)
    low = RNG.uniform((1, 1), (H - 12, W - 12), (B, 3, 2)).round()
    box = np.concatenate([low, low + RNG.uniform(6, 10, (B, 3, 2)).round()], -1)
    label = {
        "boxes": box.astype(np.float32),
        "classes": np.tile(np.array([0, 1, -1], np.int32), (B, 1)),
    }
    y, x = np.indices((H, W)) + 0.5
    inside = lambda k, at: (at >= box[..., k, None, None]) & (at <= box[..., k + 2, None, None])
    image = np.moveaxis((inside(0, y) & inside(1, x)).astype(np.float32), 1, -1)
    image, made = moved(text, task, image, label)
    seen = 0
    for i in range(B):
        for j in range(2):
            if made["classes"][i, j] < 0:
                continue
            seen += 1
            rows, columns = np.nonzero(image[i, ..., j] > 0.5)
            found = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
            # Where nothing is enlarged the boxes are of whole pixels; elsewhere a pixel is counted
            # if it is seen by more than half, so an edge is off by up to half of one, and of two at
            # the image's own edge, which goes on outside.
            exact = text.startswith(("flip", "shift"))
            np.testing.assert_allclose(made["boxes"][i, j], found, atol=1e-4 if exact else 0.8)
    assert seen > B
    assert (made["classes"][:, 2] == -1).all()
    task.check(made)


def test_a_box_that_is_hardly_seen_is_given_up():
    task = Detection(name="boxes", num_classes=1, most=1)
    label = {"boxes": np.tile([[[0.0, 0.0, 8.0, 8.0]]], (60, 1, 1)).astype(np.float32)}
    label["classes"] = np.zeros((60, 1), np.int32)
    keys = jax.random.split(jax.random.key(3), 60)
    _, made = moved("crop:zooms=(2,)", task, np.zeros((60, 16, 16, 1), np.float32), label, keys)
    area = (made["boxes"][..., 2:] - made["boxes"][..., :2]).prod(-1)
    assert 0 < (made["classes"] == -1).sum() < 60
    assert (area[made["classes"] == 0] > 0.25 * 16 * 16).all()
    assert (area[made["classes"] == -1] == 0).all()


def test_mirroring_twice_is_nothing():
    once = flip(share=1.0, tasks=[DIGIT])
    np.testing.assert_array_equal(once(KEYS, once(KEYS, batch()))["image"], IMAGES)
    np.testing.assert_array_equal(once(KEYS, batch())["image"], IMAGES[:, :, ::-1])
    down = flip(share=1.0, vertical=True, tasks=[DIGIT])
    np.testing.assert_array_equal(down(KEYS, batch())["image"], IMAGES[:, ::-1])


def test_a_turn_by_a_right_angle_is_exact():
    """The only turn of a square that needs no interpolation."""
    image = RNG.uniform(0, 1, (8, 8, 2)).astype(np.float32)
    turn = Turn(size=(8, 8), angle=jnp.pi / 2, zoom=jnp.float32(1), shift=jnp.zeros(2))
    made = np.asarray(turn.smooth(image))
    at = np.asarray(turn.points(np.array([[0.5, 0.5]], np.float32)))[0]
    row, column = np.floor(at).astype(int)
    np.testing.assert_allclose(made[row, column], image[0, 0], atol=1e-5)
    assert any(np.allclose(made, np.rot90(image, k), atol=1e-5) for k in (1, 3))
    np.testing.assert_allclose(turn.plane(image), made, atol=1e-5)


def test_mixed_losses_are_the_mean_of_both_losses():
    tasks = (
        DIGIT,
        Regression(name="value", kind="l2"),
        MultiLabel(name="many", num_classes=4),
    )
    labels = {
        "digit": np.arange(B, dtype=np.int32),
        "value": np.arange(B, dtype=np.float32),
        "many": RNG.integers(0, 2, (B, 4)).astype(np.int32),
    }
    made = mixup(alpha=1.0, tasks=tasks)(KEYS, batch(**labels))
    # How much of each image is left tells the share.
    before = np.roll(IMAGES, 1, 0)
    share = ((made["image"] - before) / (IMAGES - before)).reshape(B, -1)
    share = np.median(share, 1)
    np.testing.assert_allclose(
        made["labels"]["value"],
        share * labels["value"] + (1 - share) * np.roll(labels["value"], 1),
        atol=1e-4,
    )
    for task, shape in ((tasks[0], (10,)), (tasks[2], (4,))):
        output = RNG.normal(size=(B, *shape)).astype(np.float32)
        for i in range(B):
            one = lambda label, task=task, i=i, output=output: float(
                task.loss(output[i : i + 1], np.asarray(label)[None], np.ones(1, bool))[0]
            )
            both = [one(labels[task.name][i]), one(labels[task.name][i - 1])]
            expected = share[i] * both[0] + (1 - share[i]) * both[1]
            assert one(made["labels"][task.name][i]) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_pasted_region_brings_its_labels_along():
    mask = Segmentation(name="mask", num_classes=B)
    label = np.broadcast_to(np.arange(B)[:, None, None], (B, H, W)).astype(np.int32)
    image = label[..., None].astype(np.float32)
    labels = {"mask": label, "digit": np.arange(B, dtype=np.int32)}
    made = cutmix(tasks=(mask, DIGIT))(KEYS, batch(image, **labels))
    np.testing.assert_array_equal(made["image"][..., 0], made["labels"]["mask"])
    for i in range(B):
        shares = np.bincount(made["labels"]["mask"][i].ravel(), minlength=10) / (H * W)
        np.testing.assert_allclose(made["labels"]["digit"][i], shares, atol=1e-5)
    assert (np.asarray(made["labels"]["mask"]) != label).any()


def test_what_is_mixed_with_a_missing_label_has_none():
    whole = batch()
    whole["present"]["digit"][2] = False
    made = mixup(tasks=[DIGIT])(KEYS, whole)
    assert np.asarray(made["present"]["digit"]).tolist() == [True, True, False, False, True, True]


@pytest.mark.parametrize("augmentation", [mixup, cutmix])
def test_points_and_boxes_cannot_be_mixed(augmentation):
    task = Keypoints(name="points", num_keypoints=1)
    with pytest.raises(ValueError, match="'points' .Keypoints. cannot be mixed: leave out mixup"):
        augmentation(tasks=[task])(KEYS, batch(points=np.zeros((B, 1, 3), np.float32)))


@pytest.mark.parametrize("augmentation", [affine, crop, mixup])
def test_labels_of_no_task_are_refused(augmentation):
    with pytest.raises(ValueError, match="the labels 'where' have no task that transforms them"):
        augmentation(tasks=[DIGIT])(KEYS, batch(where=np.zeros((B, 8, 9), np.int32)))


def test_several_are_done_in_turn_with_keys_of_their_own():
    both = make_augment(["flip", "flip"], [DIGIT])(KEYS, batch())["image"]
    once = make_augment(["flip"], [DIGIT])(KEYS, batch())["image"]
    assert (np.asarray(both) != np.asarray(once)).any()
    assert make_augment(["none"], [DIGIT]) is make_augment([], [DIGIT]) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("affine:shift=-1", "shift must be >= 0, not -1"),
        ("affine:zoom=-1", "zoom must be"),
        ("affine:rotate=1e999", "rotate must be"),
        ("flip:share=2", "share must be in 0..1, not 2"),
        ("crop:zooms=(0.5,)", "zooms must be in 1..100"),
        ("crop:zooms=()", "zooms must be"),
        ("mixup:alpha=0", "alpha must be > 0"),
        ("blurr", "unknown augmentation 'blurr'; did you mean 'blur'"),
    ],
)
def test_impossible_strengths_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        make_augment([text], [DIGIT])
