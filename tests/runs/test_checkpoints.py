"""Checkpoints: what is kept, what comes back, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pyrage
import pytest
from support.disk import fill, mounted

from mtljax.runs.checkpoints import Checkpoints, saved_steps
from mtljax.runs.encryption import parse_keys
from mtljax.step.state import TrainState


@jax.jit
def at_step(step):
    """A state with a leaf of every kind that training has, all different at every step."""
    step = jnp.asarray(step, jnp.int32)
    weights = jax.random.normal(jax.random.fold_in(jax.random.key(0), step), (64, 33))
    return TrainState(
        step=step,
        params={"trunk": {"kernel": weights, "bias": weights[0]}},
        model_state={"constants": {"mean": weights[1]}},
        opt_state=((), {"mu": weights.astype(jnp.bfloat16), "count": step}),
        balancer_state=(weights[:2], ()),
        ema={"trunk": {"kernel": weights + 1, "bias": weights[0] + 1}},
        key=jax.random.fold_in(jax.random.key(7), step),
        skipped=step // 2,
        skipped_in_row=step % 2,
    )


def bits(state):
    """Every leaf as bytes."""
    state = state.replace(key=jax.random.key_data(state.key))
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


@pytest.fixture(params=["plain", "encrypted"])
def keys(request):
    """Every test of this file is of both kinds of checkpoints, unless it says otherwise."""
    secret = str(pyrage.x25519.Identity.generate())
    return None if request.param == "plain" else parse_keys(secret, "KEY")


@pytest.fixture
def checkpoints(tmp_path, keys):
    made = Checkpoints(tmp_path, keys=keys)
    yield made
    made.close()


def names(folder):
    return {path.name.removesuffix(".age") for path in (folder / "checkpoints").iterdir()}


def test_the_latest_and_the_best_are_kept(tmp_path, keys):
    checkpoints = Checkpoints(tmp_path, keys=keys)
    for step, score in {10: 3.0, 20: 1.0, 30: 2.0, 40: 1.5}.items():
        checkpoints.save(at_step(step), score)
    checkpoints.close()
    assert names(tmp_path) == {"20", "40"}
    again = Checkpoints(tmp_path, keys=keys)
    assert (again.latest(), again.best()) == (40, 20)
    again.save(at_step(50), 0.5)
    again.close()
    assert names(tmp_path) == {"50"}


def test_an_empty_folder_has_none(checkpoints):
    assert checkpoints.latest() is None
    assert checkpoints.best() is None


def test_everything_comes_back_bit_for_bit(checkpoints):
    checkpoints.save(at_step(10), 0.0)
    found = checkpoints.restore(10, at_step(0))
    assert bits(found) == bits(at_step(10))
    assert jax.tree.structure(found) == jax.tree.structure(at_step(0))
    draw = jax.random.normal(found.key, (4,))
    assert (draw == jax.random.normal(at_step(10).key, (4,))).all()


def test_steps_that_reuse_the_memory_do_not_spoil_what_is_being_written(tmp_path, keys):
    @jax.jit
    def scramble(state):
        params = jax.tree.map(lambda x: x * 1.001 + 1, state.params)
        return state.replace(params=params, step=state.step + 1)

    scramble = jax.jit(scramble, donate_argnums=0)
    big = {"kernel": jax.random.normal(jax.random.key(1), (1000, 1000))}
    state = at_step(0).replace(params=big, ema=None)
    checkpoints, expected = Checkpoints(tmp_path, keys=keys), {}
    for _ in range(3):
        expected[int(state.step)] = bits(state)
        checkpoints.save(state, -float(state.step))
        for _ in range(50):  # each overwrites the buffers of the one before
            state = scramble(state)
        jax.block_until_ready(state)
        (latest,) = set(expected) - set(list(expected)[:-1])
        assert bits(checkpoints.restore(latest, state)) == expected[latest]
    checkpoints.close()


def test_parameters_can_be_used_without_the_optimizer(checkpoints):
    checkpoints.save(at_step(10), 0.0)
    found, saved = checkpoints.restore_for_inference(10), at_step(10)
    for part in ("params", "model_state", "ema"):
        same = jax.tree.map(lambda x, y: (x == y).all(), getattr(found, part), getattr(saved, part))
        assert all(jax.tree.leaves(same))
    assert found.opt_state is None


def test_what_was_saved_on_many_devices_is_used_on_one(checkpoints):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    checkpoints.save(jax.device_put(at_step(10), everywhere), 0.0)
    kernel = checkpoints.restore_for_inference(10).params["trunk"]["kernel"]
    assert (kernel == np.asarray(at_step(10).params["trunk"]["kernel"])).all()
    assert len(jnp.asarray(kernel).devices()) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"params": {"trunk": {"kernel": jnp.zeros((64, 34)), "bias": jnp.zeros(33)}}},
            r"params:trunk:kernel is float32\[64, 33\], not float32\[64, 34\]",
        ),
        (
            {"params": {"other": {"kernel": jnp.zeros((64, 33)), "bias": jnp.zeros(33)}}},
            "it has no params:other:bias",
        ),
        ({"ema": None}, "it has ema:trunk:bias"),
        ({"skipped": jnp.zeros(())}, r"skipped is int32\[\], not float32\[\]"),
    ],
    ids=["shape", "name", "fewer", "type"],
)
def test_of_another_model(checkpoints, change, reason):
    checkpoints.save(at_step(10), 0.0)
    with pytest.raises(ValueError, match=f"checkpoints/10 belongs to another model: {reason}"):
        checkpoints.restore(10, at_step(0).replace(**change))


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_damaged(tmp_path, keep):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(at_step(10), 0.0)
    checkpoints.close()
    for path in (tmp_path / "checkpoints" / "10" / "default").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    checkpoints = Checkpoints(tmp_path, read_only=True)
    for use in (
        lambda: checkpoints.restore(10, at_step(0)),
        lambda: checkpoints.restore_for_inference(10),
    ):
        with pytest.raises(ValueError, match="checkpoints/10 is damaged; delete that") as error:
            use()
        assert "\n" not in str(error.value)
    checkpoints.close()


def test_foreign_files_are_not_taken_for_checkpoints(tmp_path, keys):
    (tmp_path / "checkpoints" / "notes").mkdir(parents=True)
    (tmp_path / "checkpoints" / "readme.txt").write_text("mine")
    checkpoints = Checkpoints(tmp_path, keys=keys)
    assert checkpoints.latest() is None
    checkpoints.save(at_step(10), 0.0)
    checkpoints.close()
    assert names(tmp_path) == {"notes", "readme.txt", "10"}


def test_a_checkpoint_is_replaced_by_another_of_its_step(tmp_path, keys):
    checkpoints = Checkpoints(tmp_path, keys=keys)
    checkpoints.save(at_step(10), 3.0)
    checkpoints.save(at_step(10).replace(skipped=jnp.int32(7)), 1.0)
    checkpoints.close()
    assert names(tmp_path) == {"10"}
    again = Checkpoints(tmp_path, keys=keys)
    assert (again.latest(), int(again.restore(10, at_step(0)).skipped)) == (10, 7)
    again.close()


def test_a_checkpoint_is_there_while_it_is_replaced(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(at_step(5), 1.0)
    checkpoints.save(at_step(10), 3.0)
    checkpoints.wait()

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._store._manager, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(at_step(10), 2.0)
    assert saved_steps(tmp_path) == [5, 10]
    again = Checkpoints(tmp_path)
    assert (again.latest(), again.best()) == (10, 5)
    assert bits(again.restore(10, at_step(0))) == bits(at_step(10))
    again.close()
    assert names(tmp_path) == {"5", "10"}


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, keys, capfd):
    with mounted(tmp_path / "disk", megabytes=1) as disk:
        fill_between_checkpoints(disk, keys)
    assert capfd.readouterr().err == ""


def fill_between_checkpoints(disk, keys):
    checkpoints = Checkpoints(disk, keys=keys)
    checkpoints.save(at_step(10), 3.0)
    checkpoints.wait()
    filler = fill(disk, left=16384)

    def save():
        checkpoints.save(at_step(20), 1.0)
        checkpoints.wait()

    with pytest.raises(OSError, match="No space left on device"):
        save()
    assert saved_steps(disk) == [10]
    filler.unlink()
    again = Checkpoints(disk, keys=keys)
    assert bits(again.restore(10, at_step(0))) == bits(at_step(10))
    again.close()
