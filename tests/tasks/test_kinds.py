"""What single kinds of task promise, on cases small enough to be worked out by hand."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtljax.tasks import (
    Depth,
    Detection,
    Edges,
    Keypoints,
    MultiLabel,
    Normals,
    Reconstruction,
    Regression,
    Saliency,
    Segmentation,
)
from mtljax.tasks.edges import match
from mtljax.tasks.streaming import precise_sum


def compute(task, output, label):
    present = jnp.ones(len(output), bool)
    update = jax.jit(lambda *batch: task.metrics.update(task.metrics.empty(), *batch))
    return task.metrics.compute(update(output, label, present))


@functools.partial(jax.jit, static_argnums=0)
def loss(task, output, label):
    return task.loss(output, label, jnp.ones(len(output), bool))


@functools.partial(jax.jit, static_argnums=0)
def gradient(task, output, label):
    return jax.grad(lambda x: loss(task, x, label)[0])(output)


def points(*where, size=(8, 8)):
    mask = np.zeros(size, bool)
    for place in where:
        mask[place] = True
    return mask


def test_precise_sum_keeps_what_32_bits_lose():
    x = np.random.default_rng(0).exponential(size=(2, 500_000)).astype(np.float32)
    x[1, 0] = 1e8
    found = np.asarray(jax.jit(precise_sum)(x), np.float64).sum(-1)
    np.testing.assert_allclose(found, x.astype(np.float64).sum(-1), rtol=1e-11)


def test_counts_are_exact_beyond_2_to_the_24():
    task = Segmentation(name="mask", num_classes=2)
    state = {"confusion": np.asarray([[2**24, 0], [0, 2**24]], np.int64)}
    for _ in range(3):
        state = task.metrics.merge(state, {"confusion": np.asarray([[1, 0], [0, 0]], np.int32)})
    assert state["confusion"][0, 0] == 2**24 + 3


def test_segmentation_leaves_out_classes_that_are_nowhere():
    label = np.asarray([[[0, 0, 1, 255]]], np.int32)
    output = 9 * np.eye(4, dtype=np.float32)[[[[0, 1, 1, 3]]]]
    found = compute(Segmentation(name="mask", num_classes=4), output, label)
    np.testing.assert_allclose(found["iou"], [0.5, 0.5, np.nan, np.nan])
    assert (found["miou"], found["pixel_accuracy"]) == (0.5, pytest.approx(2 / 3))


def test_segmentation_ignores_the_chosen_label_only():
    Segmentation(name="mask", num_classes=3, ignore=None).check(np.zeros((1, 2, 2), int))
    with pytest.raises(ValueError, match="is 255 at"):
        Segmentation(name="mask", num_classes=3, ignore=None).check(np.full((1, 2, 2), 255))
    task = Segmentation(name="mask", num_classes=3, ignore=0)
    _, count = loss(task, jnp.zeros((1, 1, 3, 3)), jnp.asarray([[[0, 1, 2]]]))
    assert count == 2


def test_berhu_is_l1_up_to_a_fifth_of_the_largest_error():
    task = Depth(name="depth", kind="berhu")
    label = np.full((1, 1, 3), 10, np.float32)
    total, count = loss(task, label + np.asarray([[[0.5, 2, 5]]], np.float32), label)
    np.testing.assert_allclose(total, 0.5 + (4 + 1) / 2 + (25 + 1) / 2, rtol=1e-6)
    assert count == 3


def test_silog_is_eigens_per_image_and_blind_to_scale_at_balance_1():
    rng = np.random.default_rng(0)
    output, label = rng.uniform(1, 9, (2, 2, 4, 5)).astype(np.float32)
    label[1, 2:] = 0
    wanted = 0.0
    for p, t in zip(output, label, strict=True):
        d = np.log(p[t > 0]) - np.log(t[t > 0])
        wanted += len(d) * ((d**2).mean() - 0.3 * d.mean() ** 2)
    total, count = loss(Depth(name="d", kind="silog", balance=0.3), output, label)
    np.testing.assert_allclose(total, wanted, rtol=1e-5)
    assert count == 30
    blind = Depth(name="d", kind="silog", balance=1.0)
    total, _ = loss(blind, 3 * label, label)
    np.testing.assert_allclose(total, 0, atol=1e-5)


@pytest.mark.parametrize("kind", ["l1", "berhu", "silog"])
def test_depth_losses_pull_hopeless_predictions_up(kind):
    task = Depth(name="depth", kind=kind)
    pull = gradient(
        task, np.asarray([[[-5, -1], [0, 2]]], np.float32), np.full((1, 2, 2), 3, np.float32)
    )
    assert np.isfinite(pull).all()
    assert (pull[0, 0] < 0).all()


@pytest.mark.parametrize("degrees", [0.0, 0.003, 17.0, 90.0, 179.9])
def test_normals_measure_small_and_large_angles(degrees):
    turn = np.radians(degrees)
    label = np.zeros((1, 2, 2, 3), np.float32)
    label[..., 2] = 1
    output = np.zeros_like(label)
    output[..., 0], output[..., 2] = 5 * np.sin(turn), 5 * np.cos(turn)
    found = compute(Normals(name="normals"), output, label)
    for name in ("mean", "rmse"):
        assert found[name] == pytest.approx(degrees, rel=1e-5, abs=1e-6)
    assert found["median"] == pytest.approx(degrees, abs=0.01)


def test_a_normal_of_length_0_is_not_a_hit():
    task, label = Normals(name="normals"), np.ones((1, 2, 2, 3), np.float32)
    assert compute(task, np.zeros_like(label), label)["mean"] == 90
    assert np.isfinite(gradient(task, np.zeros_like(label), label)).all()


@pytest.mark.parametrize(
    ("predicted", "true", "distance", "pairs"),
    [
        ([(1, 1)], [(1, 1)], 1, 1),
        ([(1, 1)], [(1, 2)], 1, 1),
        ([(1, 1)], [(2, 2)], 1, 0),
        ([(1, 1)], [(2, 2)], 1.5, 1),
        ([(1, 1), (1, 2)], [(1, 1)], 1, 1),  # one to one
        ([(1, 1), (1, 3)], [(1, 2), (1, 4)], 1, 2),  # a greedy match of (1, 3) finds one
        ([(0, 0)], [(7, 7), (0, 7), (7, 0)], 2, 0),  # no way around the borders
        ([], [(1, 1)], 1, 0),
        ([(1, 1)], [], 1, 0),
    ],
)
def test_edges_are_matched_one_to_one_within_the_distance(predicted, true, distance, pairs):
    assert match(points(*predicted), points(*true), distance) == pairs


def test_ods_has_one_threshold_and_ois_one_per_image():
    # Two true pixels in each image. At 1/3 image 0 shows both and a false one; image 1 a false one
    # and one true. At 2/3 image 0 shows one true pixel and image 1 both: by image 4/5 and 1.
    label = np.stack([points((1, 1), (5, 5))] * 2).astype(np.int32)
    probability = np.full((2, 8, 8), 0.1)
    probability[0, 1, 1], probability[0, 5, 5], probability[0, 1, 6] = 0.9, 0.5, 0.5
    probability[1, 1, 1], probability[1, 5, 5] = 0.9, 0.9
    probability[1, [1, 3, 7, 7], [6, 7, 1, 4]] = 0.5
    output = np.log(probability / (1 - probability)).astype(np.float32)
    found = compute(Edges(name="edges", thresholds=2), output, label)
    assert found["ods"] == pytest.approx(2 * 3 / (3 + 4))
    assert found["ods_threshold"] == pytest.approx(2 / 3)
    assert found["ois"] == pytest.approx(2 * 4 / (5 + 4))


def test_saliency_of_nothing_is_right_if_nothing_is_found():
    label, output = np.zeros((1, 4, 4), np.int32), np.full((1, 4, 4), -9, np.float32)
    task = Saliency(name="saliency")
    assert compute(task, output, label) == {"max_f": 1.0, "miou": 1.0}
    assert compute(task, -output, label) == {"max_f": 0.0, "miou": 0.0}


def test_keypoints_read_positions_between_pixels():
    where = np.asarray([[[5.3, 9.8, 1], [3.0, 2.0, 0]]], np.float32)
    y, x = np.mgrid[:16, :20] + 0.5
    heat = [-((y - py) ** 2 + (x - px) ** 2) / (2 * 1.5**2) for py, px, _ in where[0]]
    task = Keypoints(name="points", num_keypoints=2)
    output = np.stack(heat, -1)[None].astype(np.float32)
    np.testing.assert_allclose(jax.jit(task.decode)(output)[0, 0, :2], where[0, 0, :2], atol=1e-4)
    far = where + np.asarray([3.0, 4.0, 0.0], np.float32)
    found = compute(task, output, far)
    share = 5 / np.hypot(16, 20)
    assert found["nme"] == pytest.approx(share, rel=1e-5)
    assert (found["pck"], found["auc"]) == (0, 0)


def boxes(*entries):
    box, kind = zip(*entries, strict=True)
    return {"boxes": np.asarray([box], np.float32), "classes": np.asarray([kind], np.int32)}


def test_detection_decodes_what_it_was_trained_for():
    task = Detection(name="boxes", num_classes=2, most=2)
    label = boxes(([2, 4, 12, 20], 1), ([17, 17, 31, 27], 0), ([0, 0, 0, 0], -1))

    optimizer = optax.adam(0.1)

    def step(carry, _):
        output, state = carry
        value, gradient = jax.value_and_grad(lambda x: loss(task, x, label)[0])(output)
        update, state = optimizer.update(gradient, state)
        return (output + update, state), value

    start = jnp.zeros((1, 8, 8, 6))
    run = jax.jit(lambda x: jax.lax.scan(step, (x, optimizer.init(x)), None, 300))
    (output, _), losses = run(start)
    assert losses[-1] < 0.1 < losses[0]
    found = jax.jit(task.decode)(output)
    order = np.argsort(-found["classes"][0])
    np.testing.assert_array_equal(found["classes"][0][order], [1, 0])
    np.testing.assert_allclose(found["boxes"][0][order], label["boxes"][0, :2], atol=1.0)
    assert compute(task, output, label)["map_50"] == pytest.approx(1)


def test_detection_map_of_a_case_worked_out_by_hand():
    # One class, two objects, three detections: right, wrong, right. Precision 1 up to recall 1/2
    # (51 of 101 levels), then 2/3. The first box overlaps by 3/4: right up to IoU 0.75 at least.
    task = Detection(name="boxes", num_classes=1, stride=4, most=3)
    label = boxes(([0, 0, 8, 8], 0), ([16, 16, 24, 24], 0))
    output = np.full((1, 8, 8, 5), -20, np.float32)
    half = np.log(2.0)
    for (y, x), score, height in [((1, 1), 3, half), ((1, 5), 2, half), ((5, 5), 1, np.log(1.5))]:
        output[0, y, x] = score, height, half, 0, 0
    found = compute(task, output, label)
    exact = (51 + 50 * 2 / 3) / 101
    once = 51 / 101
    assert found["map_50"] == pytest.approx(exact)
    assert found["map_75"] == pytest.approx(exact)
    assert found["map"] == pytest.approx((6 * exact + 4 * once) / 10)


def test_images_without_objects_count_in_the_loss_and_lower_precision():
    task = Detection(name="boxes", num_classes=1, most=1)
    label = boxes(([0, 0, 0, 0], -1))
    total, count = loss(task, jnp.zeros((1, 4, 4, 5)), label)
    assert count == 1
    np.testing.assert_allclose(total, 16 * 0.25 * np.log(2), rtol=1e-6)
    assert np.isnan(compute(task, np.zeros((1, 4, 4, 5), np.float32), label)["map"])


def test_detection_without_its_evaluator_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"'boxes' needs .* 'mtljax\[detection\]'"):
        _ = Detection(name="boxes", num_classes=2).metrics


def test_psnr_of_a_known_error():
    label = np.full((1, 16, 16, 3), 100.0, np.float32)
    found = compute(Reconstruction(name="image", peak=255.0), label + 25.5, label)
    assert found["psnr"] == pytest.approx(20)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Segmentation, {"num_classes": 1}, "num_classes must be >= 2, not 1"),
        (Segmentation, {"num_classes": 3, "class_names": ("a",)}, "1 class_names for 3"),
        (Segmentation, {"num_classes": 3, "decoder": "unet"}, "linear, fpn, aspp, not 'unet'"),
        (Segmentation, {"num_classes": 3, "levels": 0}, "levels must be >= 1, not 0"),
        (MultiLabel, {"num_classes": -1}, "num_classes must be >= 1, not -1"),
        (Depth, {"kind": "l3"}, "l1, berhu, silog, not 'l3'"),
        (Depth, {"floor": 0.0}, "floor must be > 0"),
        (Edges, {"positive_weight": 1.0}, "in .0, 1., or 'balanced', not 1.0"),
        (Edges, {"thresholds": 256}, "1..255, not 256"),
        (Saliency, {"positive_weight": 0.0}, "in .0, 1., or 'balanced', not 0.0"),
        (Keypoints, {"num_keypoints": 0}, "num_keypoints must be >= 1"),
        (Keypoints, {"num_keypoints": 1, "sigma": 0.0}, "sigma must be > 0"),
        (Detection, {"num_classes": 2, "stride": 0}, "stride must be >= 1"),
        (Reconstruction, {"kind": "ssim"}, "l1, l2, not 'ssim'"),
        (Reconstruction, {"peak": 0.0}, "peak must be > 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=f"task 't': .*{message}"):
        kind(name="t", **settings)


def test_a_threshold_belongs_to_the_numbers_above_it():
    labels = np.asarray([0.0, 0.5, 0.5, 1.0], np.float32)
    outputs = np.asarray([0.49, 0.5, 0.49, -3.0], np.float32)
    assert compute(Regression(name="risk", threshold=0.5), outputs, labels)["accuracy"] == 0.5
    assert "accuracy" not in compute(Regression(name="risk"), outputs, labels)
    with pytest.raises(ValueError, match="threshold must be finite, not nan"):
        Regression(name="risk", threshold=float("nan"))
