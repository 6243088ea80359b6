"""How far outputs are from a teacher's, for every kind of task, against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from support.task_samples import sample

from mtljax.tasks import TASKS as KINDS

TEMPERATURE = 3.0


def softmax(x):
    e = np.exp(np.asarray(x, np.float64) - np.max(x, -1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def divergence(output, target, temperature):
    p, q = softmax(target / temperature), softmax(output / temperature)
    return temperature**2 * (p * (np.log(p) - np.log(q))).sum(-1)


def yes_or_no(output, target, temperature):
    both = lambda x: np.stack([x, np.zeros_like(x)], -1)
    return divergence(both(output), both(target), temperature)


def over_image(x):
    return x.reshape(len(x), -1).mean(-1)


def by_point(x):
    return np.moveaxis(x.reshape(len(x), -1, x.shape[-1]), 1, 2)


REFERENCES = {
    "classification": lambda task, o, t: divergence(o, t, TEMPERATURE),
    "segmentation": lambda task, o, t: over_image(divergence(o, t, TEMPERATURE)),
    "multilabel": lambda task, o, t: over_image(yes_or_no(o, t, TEMPERATURE)),
    "edges": lambda task, o, t: over_image(yes_or_no(o, t, TEMPERATURE)),
    "saliency": lambda task, o, t: over_image(yes_or_no(o, t, TEMPERATURE)),
    "keypoints": lambda task, o, t: over_image(divergence(by_point(o), by_point(t), TEMPERATURE)),
    "regression": lambda task, o, t: over_image(((o - t) / task.scale) ** 2),
    "reconstruction": lambda task, o, t: over_image(np.abs(o - t) / task.peak),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "detection"])
def test_a_tasks_distance_is_0_for_the_teacher_itself_and_as_in_numpy_for_others(kind):
    made = sample(kind, 6)
    task, output, target = made.task, jnp.asarray(made.outputs), jnp.asarray(made.outputs[::-1])
    # The angle between equal directions is rounded.
    np.testing.assert_allclose(task.distance(output, output, TEMPERATURE), 0, atol=1e-6)
    found = task.distance(output, target, TEMPERATURE)
    assert found.shape == (6,)
    assert (np.asarray(found) > 1e-3).all()
    if kind in REFERENCES:
        wide = (np.asarray(x, np.float64) for x in (output, target))
        np.testing.assert_allclose(found, REFERENCES[kind](task, *wide), rtol=1e-4)


def test_every_kind_of_task_has_a_reference_or_its_own_loss():
    own_loss = {"depth", "normals"}
    assert {"detection"} | own_loss | set(REFERENCES) == set(KINDS)
