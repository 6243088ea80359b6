"""What is frozen by which name, and batch normalization by its running statistics."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.models.batch_statistics import frozen_statistics
from mtljax.models.freezing import path_matches, split_frozen

PARAMS = {
    "fusion": {
        "trunk_0": {"stem": {"kernel": 0, "bias": 1}, "block_0": {"norm": {"scale": 2}}},
        "trunk_1": {"block_0": {"kernel": 3}, "block_1": {"kernel": 4}},
        "gate": {"bias": 5},
    },
    "task_digit": {"kernel": 6},
}
COPIES = {
    "fusion": {"digit_trunk_0": {"kernel": 0}, "value_trunk_0": {"kernel": 1}},
    "task_digit": {"kernel": 2},
}


@pytest.mark.parametrize(
    ("names", "frozen"),
    [
        ((), set()),
        (("trunk_0",), {0, 1, 2}),
        (("trunk",), {0, 1, 2, 3, 4}),
        (("trunk_0/stem", "task_digit"), {0, 1, 6}),
        (("fusion/trunk_1/block_1",), {4}),
        (("block",), {2, 3, 4}),
        (("trunk_*/block_0",), {2, 3}),
        (("bias",), {1, 5}),
        (("fusion",), {0, 1, 2, 3, 4, 5}),
        (("*/kernel",), {0, 3, 4, 6}),
    ],
)
def test_names_freeze_what_they_say(names, frozen):
    learning, found = split_frozen(PARAMS, names)
    assert set(found.values()) == frozen
    assert set(learning.values()) == set(range(7)) - frozen


def test_a_stage_is_frozen_in_every_tasks_copy_or_in_one():
    assert set(split_frozen(COPIES, ["trunk_0"])[1].values()) == {0, 1}
    assert set(split_frozen(COPIES, ["trunk"])[1].values()) == {0, 1}
    assert set(split_frozen(COPIES, ["digit_trunk_0"])[1].values()) == {0}


def test_a_name_ends_where_a_module_ends():
    assert not path_matches("fusion/trunk_12/kernel", "trunk_1")
    assert not path_matches("fusion/my_stem/kernel", "stem")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["trunc"], "freeze: unknown module 'trunc'; did you mean 'trunk'?"),
        (
            ["trunk_0", "trunk_3"],
            "freeze: unknown module 'trunk_3'; did you mean 'trunk_",
        ),
        (
            ["task_digits"],
            "freeze: unknown module 'task_digits'; did you mean 'task_digit'?",
        ),
        (["fusion", "task_digit"], "freeze=('fusion', 'task_digit') leaves no trainable parameter"),
    ],
)
def test_names_of_nothing_and_of_everything_are_refused(names, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        split_frozen(PARAMS, names)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


class Normalized(nn.Module):
    """One layer is told its mode when it is made, one when it is called."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dropout(0.5, deterministic=not train)(nn.BatchNorm()(x, not train))


def test_frozen_statistics_are_used_as_in_evaluation_and_stay_while_dropout_goes_on():
    model, x = Normalized(), jnp.arange(12.0).reshape(4, 3)
    variables = model.init(jax.random.key(0), x, train=False)
    variables["batch_stats"] = jax.tree.map(lambda leaf: leaf + 0.5, variables["batch_stats"])
    options = {"train": True, "mutable": "batch_stats", "rngs": {"dropout": jax.random.key(1)}}
    with frozen_statistics():
        output, changed = model.apply(variables, x, **options)
    jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], variables["batch_stats"])
    expected = model.apply(variables, x, train=False)
    dropped = np.asarray(output == 0)
    assert 0 < dropped.sum() < dropped.size
    np.testing.assert_allclose(output[~dropped], 2 * expected[~dropped], rtol=1e-6)
    _, changed = model.apply(variables, x, **options)
    assert not jnp.array_equal(
        changed["batch_stats"]["BatchNorm_0"]["mean"],
        variables["batch_stats"]["BatchNorm_0"]["mean"],
    )
