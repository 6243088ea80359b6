"""Learning-rate multipliers in training, with balancers and layer-wise decay."""

import jax
import numpy as np
import pytest
from support import small_run

from mtljax.comparison.plan import single_task


def moved(balancer, **changes):
    """{module: largest change of its parameters in one step of gradient descent}."""
    programs = small_run.make_programs(
        optimizer="sgd", balancer=balancer, clip_norm=None, trunk="mlp:widths=(4,4)", **changes
    )
    state = programs.create(0)
    before = jax.device_get(state.params)
    after, _ = programs.executor([0], 0).run(state, 0, 1)
    difference = lambda x, y: float(np.abs(x - y).max())
    change = jax.tree.map(difference, jax.device_get(after.params), before)
    parts = {**change["fusion"], **{k: v for k, v in change.items() if k != "fusion"}}
    return {name: max(jax.tree.leaves(part)) for name, part in parts.items()}


@pytest.mark.parametrize("balancer", ["ew", "pcgrad", "dwa"])
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_a_step_is_multiplied_whatever_balances_the_gradients(balancer, layer_decay):
    plain = moved(balancer, layer_decay=layer_decay)
    scaled = moved(
        balancer, layer_decay=layer_decay, learning_rate_scales={"trunk": 0.1, "task_a": 10.0}
    )
    assert plain.keys() == scaled.keys()
    for name, change in plain.items():
        factor = 10.0 if name == "task_a" else 0.1 if name.startswith("trunk") else 1.0
        # The differences of float32 parameters are rounded.
        assert scaled[name] == pytest.approx(factor * change, rel=1e-2, abs=1e-7), name


def test_a_single_task_baseline_has_the_scales_of_its_own_head():
    experiment = small_run.make_programs(
        learning_rate_scales={"trunk": 0.1, "task_a": 10.0, "task_b": 2.0}
    ).setup.experiment
    assert single_task(experiment, "a").learning_rate_scales == {"trunk": 0.1, "task_a": 10.0}
