"""Checkpoints of sharded and replicated states on any number of devices."""

import functools

import jax
import numpy as np
import optax
import pyrage
import pytest
from support.problem import TASKS, make_batch, make_model
from support.small_run import make_programs, run, states
from support.tiers import full_except

from mtljax.balancing import moco
from mtljax.parallel import place
from mtljax.runs.checkpoints import Checkpoints
from mtljax.runs.encryption import parse_keys
from mtljax.step.state import create_state

FSDP = "fsdp:min_size=1"


@functools.cache
def make_state(seed):
    """A state with moments, an average and rows of gradients."""
    parts = make_model(), TASKS, moco(), optax.adam(1e-3)
    return create_state(jax.random.key(seed), *parts, make_batch(0), ema=True)


def placed(devices, sharding, seed):
    state = make_state(seed)
    return jax.device_put(state, place(8, devices, sharding).of_state(state))


def plain(state):
    return jax.tree.map(np.asarray, state.replace(key=jax.random.key_data(state.key)))


@pytest.mark.parametrize("keys", full_except([None], [None, "secret"]))
@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("to", [FSDP, "replicated"])
@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_state_of_8_devices_is_restored_on_fewer_and_back(
    tmp_path, keys, devices, to, is_reversed
):
    if keys is not None:
        keys = parse_keys(str(pyrage.x25519.Identity.generate()), "KEY")
    many, few = (8, FSDP), (devices, to)
    before, after = (few, many) if is_reversed else (many, few)
    saved, template = placed(*before, seed=0), placed(*after, seed=1)
    checkpoints = Checkpoints(tmp_path, keys=keys)
    checkpoints.save(saved, 0.0)
    found = checkpoints.restore(0, template)
    checkpoints.close()
    jax.tree.map(np.testing.assert_array_equal, plain(found), plain(saved))
    places = lambda state: jax.tree.map(lambda x: x.sharding, state)
    assert places(found) == places(template)
    rows = max(jax.tree.leaves(found.balancer_state), key=lambda x: x.size)
    count = after[0] if after[1] == FSDP else 1
    assert rows.addressable_shards[0].data.size == rows.size / count


@pytest.mark.parametrize(("before", "after"), full_except([(8, 2)], [(8, 2), (1, 8), (4, 8)]))
def test_a_run_resumes_on_another_number_of_devices(tmp_path, before, after):
    changes = {"balancer": "pcgrad", "trunk": "mlp:widths=(16,)", "sharding": FSDP}
    first, second = (make_programs(devices=count, **changes) for count in (before, after))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(first, [whole])
    with pytest.raises(KeyboardInterrupt):
        run(first, [parts], die_at=12)
    run(second, [parts])
    found, expected = states(parts)[28], states(whole)[28]
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        # Sums over another number of devices are rounded in another order.
        np.testing.assert_allclose(found[name], leaf, rtol=1e-5, atol=1e-6, err_msg=name)


def test_sharded_networks_do_not_train_side_by_side():
    programs = make_programs(devices=8, trunk="mlp:widths=(16,)", sharding=FSDP)
    assert not programs.is_faster_stacked
    with pytest.raises(ValueError, match=r"--sharding fsdp:min_size=1 trains one network at a"):
        programs.executor([0, 1], 0)
