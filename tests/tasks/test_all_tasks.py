"""What every kind of task must do, whatever it is. A new kind needs an entry in `task_samples`."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.task_samples import SIZE, sample
from support.tasks import assert_same, hide, rows

from mtljax.evaluation.evaluator import compute_metrics, scalar_metrics
from mtljax.models.heads import DENSE_HEADS
from mtljax.step.eval_step import measure
from mtljax.tasks import TASKS
from mtljax.tasks.dense import DenseTask

KINDS = list(TASKS)
DENSE = [kind for kind in KINDS if issubclass(TASKS[kind], DenseTask)]
COUNT = 71

COMPARED = {
    kind: [name for name, spec in cls.metric_specs.items() if spec.higher_is_better is not None]
    for kind, cls in TASKS.items()
}
"""Metrics of every kind that say which of two outputs is better."""

make = functools.cache(sample)


@functools.cache
def expected(kind):
    s = make(kind, COUNT)
    return s.reference(s.task, s.outputs, s.labels)


@functools.cache
def measurer(task):
    return jax.jit(
        lambda output, label, present: measure(
            [task],
            {task.name: output},
            {"labels": {task.name: label}, "present": {task.name: present}},
        )
    )


@functools.cache
def losses(task):
    """((sum, count), gradient of the sum by the outputs)."""

    def run(output, label, present):
        loss = lambda x: task.loss(x, label, present)
        return jax.value_and_grad(loss, has_aux=True)(output)

    return jax.jit(run)


def evaluate(task, outputs, labels, present, batch, place=lambda x: x):
    """Metrics of the whole set, in padded batches."""
    measured = []
    for start in range(0, len(present), batch):
        index = np.arange(start, start + batch)
        here = index < len(present)
        index = np.minimum(index, len(present) - 1)
        known = here & present[index]
        parts = rows(outputs, index), hide(rows(labels, index), known), known
        measured.append(measurer(task)(*place(parts)))
    return compute_metrics([task], measured)[task.name]


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_metrics_equal_those_of_the_whole_set_in_64_bits(kind, batch):
    s = make(kind, COUNT)
    found = evaluate(s.task, s.outputs, s.labels, np.ones(COUNT, bool), batch)
    assert s.task.main_metric in expected(kind)
    assert set(scalar_metrics(found)) <= {*expected(kind), "ods_threshold"}
    assert_same(found, expected(kind), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_do_not_depend_on_devices_or_order(kind):
    s = make(kind, COUNT)
    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), ("data",), (jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    order = np.random.default_rng(1).permutation(COUNT)
    outputs, labels = rows((s.outputs, s.labels), order)
    place = lambda parts: jax.device_put(parts, spread)
    found = evaluate(s.task, outputs, labels, np.ones(COUNT, bool), 64, place)
    assert_same(found, expected(kind), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_partly_labelled_data_counts_as_its_labelled_part(kind):
    s = make(kind, COUNT)
    present = np.random.default_rng(2).random(COUNT) < 0.5
    outputs, labels = rows((s.outputs, s.labels), present)
    alone = evaluate(s.task, outputs, labels, np.ones(len(outputs), bool), 64)
    among = evaluate(s.task, s.outputs, s.labels, present, 64)
    assert_same(scalar_metrics(among), scalar_metrics(alone), kind, rtol=1e-9)


VARIANTS = [
    *((kind, {}) for kind in KINDS),
    ("classification", {"label_smoothing": 0.1}),
    ("regression", {"kind": "l1"}),
    ("regression", {"kind": "huber"}),
    ("depth", {"kind": "berhu"}),
    ("depth", {"kind": "silog"}),
    ("saliency", {"positive_weight": 0.9}),
    ("reconstruction", {"kind": "l2"}),
]
"""Every kind of task, and whatever else its loss can be."""


@pytest.mark.parametrize(("kind", "settings"), VARIANTS)
def test_partly_labelled_data_costs_what_its_labelled_part_costs(kind, settings):
    s = make(kind, COUNT)
    task = dataclasses.replace(s.task, **settings)
    present = np.random.default_rng(2).random(COUNT) < 0.5
    (among, among_count), full = losses(task)(s.outputs, hide(s.labels, present), present)
    outputs, labels = rows((s.outputs, s.labels), present)
    (alone, alone_count), part = losses(task)(outputs, labels, np.ones(len(outputs), bool))
    assert among_count == alone_count > 0
    # 1e-5: sums in 32 bits, over other neighbors.
    np.testing.assert_allclose(among, alone, rtol=1e-5)
    np.testing.assert_allclose(full[present], part, rtol=1e-5, atol=1e-7)
    assert np.any(part)
    assert not np.any(full[~present])  # nor is it NaN


@pytest.mark.parametrize("kind", KINDS)
def test_without_labels_loss_and_gradient_are_0_and_metrics_nan(kind):
    s = make(kind, COUNT)
    absent = np.zeros(COUNT, bool)
    found = evaluate(s.task, s.outputs, s.labels, absent, 64)
    assert np.isnan([found[name] for name in (s.task.main_metric, *s.scores)]).all()

    (total, count), gradient = losses(s.task)(s.outputs, hide(s.labels, absent), absent)
    assert (total, count) == (0, 0)
    assert not np.any(gradient)

    empty = s.task.metrics.empty()
    merged = s.task.metrics.merge(empty, empty)
    assert np.isnan(s.task.metrics.compute(merged)[s.task.main_metric])


@pytest.mark.parametrize("kind", KINDS)
def test_perfect_outputs_give_perfect_scores(kind):
    s = make(kind, 7)
    found = evaluate(s.task, s.perfect, s.labels, np.ones(7, bool), 7)
    # 1e-5: 32 bits cannot say that an angle or a position is right any better than that.
    np.testing.assert_allclose([found[name] for name in s.scores], [*s.scores.values()], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_better_outputs_are_better_by_every_compared_metric(kind):
    s = make(kind, COUNT)
    present = np.ones(COUNT, bool)
    worse, better = (evaluate(s.task, x, s.labels, present, 64) for x in (s.outputs, s.perfect))
    assert s.task.main_metric in COMPARED[kind]
    for name in COMPARED[kind]:
        assert (better[name] > worse[name]) == s.task.metric_spec(name).higher_is_better, name
    assert s.task.higher_is_better == s.task.metric_spec(s.task.main_metric).higher_is_better


@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_has_a_label_and_every_number_a_direction(kind):
    s = make(kind, COUNT)
    found = evaluate(s.task, s.outputs, s.labels, np.ones(COUNT, bool), 64)
    assert set(found) == set(s.task.metric_specs)
    assert all(s.task.metric_spec(name).label for name in found)
    assert set(scalar_metrics(found)) - {"ods_threshold"} == set(COMPARED[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_update_twice_on_the_device_is_one_batch(kind):
    s = make(kind, 7)
    metrics = s.task.metrics

    @jax.jit
    def both(outputs, labels):
        state, present = metrics.empty(), jnp.ones(7, bool)
        for part in (slice(0, 3), slice(3, 7)):
            state = metrics.update(state, *rows((outputs, labels, present), part))
        return state, metrics.update(metrics.empty(), outputs, labels, present)

    twice, once = both(s.outputs, s.labels)
    assert_same(scalar_metrics(metrics.compute(twice)), scalar_metrics(metrics.compute(once)), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_check_says_which_label_is_wrong(kind):
    s = make(kind, 7)
    s.task.check(s.labels)
    for labels, message in s.bad:
        with pytest.raises(ValueError, match=f"^task '{kind}'.*{message}") as error:
            s.task.check(labels)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "decoder"),
    [(kind, d) for kind in KINDS for d in (DENSE_HEADS if kind in DENSE else [None])],
)
def test_head_gives_the_output_that_the_loss_reads(kind, decoder):
    s = make(kind, 7)
    task = s.task if decoder is None else type(s.task)(**{**vars(s.task), "decoder": decoder})
    pyramid = jnp.ones((2, 8, 10, 6)), jnp.ones((2, 4, 5, 12))
    call = lambda key: task.head().init_with_output(
        key, pyramid[-task.taps :], size=SIZE, train=False
    )
    output, _ = jax.eval_shape(call, jax.random.key(0))
    assert output.shape == (2, *s.outputs.shape[1:])
    assert task.taps == (1 if decoder in (None, "linear") else 3)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_and_words(kind):
    s = make(kind, 7)
    image = np.random.default_rng(0).random((*SIZE, 3)).astype(np.float32)
    look = jax.jit(lambda output, label: (s.task.decode(output), s.task.error(output, label)))
    decoded, errors = jax.device_get(look(s.outputs, s.labels))
    for value in (rows(s.labels, 2), rows(decoded, 2)):
        assert 0 <= len(s.task.text(value)) < 60
        picture = s.task.picture(value, image)
        if kind in DENSE:
            assert (picture.shape, picture.dtype) == ((*SIZE, 3), np.uint8)
            assert len(np.unique(picture)) > 1
        else:
            assert picture is None
    assert errors.shape == (7,)
    assert np.isfinite(errors).all()
