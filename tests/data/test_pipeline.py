"""The order of examples, and the ways they reach the device."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiers import full_except

from mtljax import parallel
from mtljax.config import Data, Experiment
from mtljax.data import Arrays, pipeline
from mtljax.data.pipeline import BatchSampler, padded_batches, read_split, size_in_bytes, stream
from mtljax.tasks import Classification, Regression
from mtljax.training.executors import HostDataExecutor, HostDataProgram
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up

sizes = st.integers(1, 40)


class OneByOne:
    """A split whose examples are made when they are asked for."""

    def __init__(self, arrays):
        self.arrays = arrays

    def __len__(self):
        return len(self.arrays)

    def __getitem__(self, index):
        return self.arrays[index]


def numbered(size):
    """Examples that say which they are."""
    numbers = np.arange(size, dtype=np.float32)
    return Arrays(
        image=np.broadcast_to(numbers[:, None, None, None], (size, 2, 2, 1)).copy(),
        labels={"number": numbers, "box": {"at": numbers.astype(np.int32)}},
        present={"number": numbers % 3 != 0, "box": np.ones(size, bool)},
    )


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**31), size=sizes, batch=sizes, start=st.integers(0, 200))
def test_order_is_a_pure_function_of_seed_and_step(seed, size, batch, start):
    batch = min(batch, size)
    order = BatchSampler(seed=seed, size=size, batch_size=batch)
    together = order.batches(start, 5)
    assert together.shape == (5, batch)
    one_by_one = [
        BatchSampler(seed=seed, size=size, batch_size=batch).batches(start + i, 1)[0]
        for i in range(5)
    ]
    np.testing.assert_array_equal(together, one_by_one)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**31), size=sizes, batch=sizes)
def test_every_epoch_has_every_example_once(seed, size, batch):
    batch = min(batch, size)
    order = BatchSampler(seed=seed, size=size, batch_size=batch)
    flat = order.batches(0, -(-4 * size // batch)).ravel()[: 4 * size]
    for epoch in flat.reshape(4, size):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(size))


def test_epochs_and_seeds_are_shuffled_anew():
    orders = [BatchSampler(seed=seed, size=100, batch_size=100).batches(0, 3) for seed in (0, 1)]
    for a, b in itertools.combinations(np.concatenate(orders), 2):
        assert (a != b).any()


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="a batch of 11 is larger than .* make data.batch_size at"):
        BatchSampler(seed=0, size=10, batch_size=11)


@pytest.mark.parametrize("kind", [lambda x: x, OneByOne], ids=["arrays", "examples"])
def test_parts_of_processes_tile_the_batch(kind):
    order = BatchSampler(seed=3, size=10, batch_size=4)
    split = kind(numbered(10))
    parts = [list(stream(split, order, slice(2 * i, 2 * i + 2), 0, 7)) for i in range(2)]
    assert len(parts[0]) == len(parts[1]) == 7
    for rows, *halves in zip(order.batches(0, 7), *parts, strict=True):
        joined = jax.tree.map(lambda a, b: np.concatenate([a, b]), *halves)
        jax.tree.map(np.testing.assert_array_equal, joined, numbered(10)[rows])


def test_a_stream_goes_on_in_the_middle_of_an_epoch():
    order = BatchSampler(seed=3, size=10, batch_size=4)
    whole = list(stream(numbered(10), order, slice(0, 4), 0, 12))
    rest = list(stream(numbered(10), order, slice(0, 4), 7, 12))
    assert len(rest) == 5
    for a, b in zip(whole[7:], rest, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("batch", [1, 3, 10, 64])
@pytest.mark.parametrize("kind", [lambda x: x, OneByOne], ids=["arrays", "examples"])
def test_padded_shows_everything_once_and_marks_the_rest(batch, kind):
    batches = list(padded_batches(kind(numbered(10)), batch))
    assert {len(b["image"]) for b in batches} == {batch}
    seen = np.concatenate([b["labels"]["box"]["at"][b["present"]["box"]] for b in batches])
    np.testing.assert_array_equal(seen, np.arange(10))
    numbers = np.concatenate([b["labels"]["number"][b["present"]["number"]] for b in batches])
    np.testing.assert_array_equal(numbers, [n for n in range(10) if n % 3])


def test_padded_parts_tile_the_whole():
    whole = list(padded_batches(numbered(10), 4))
    halves = [list(padded_batches(numbered(10), 4, slice(2 * i, 2 * i + 2))) for i in range(2)]
    for batch, *parts in zip(whole, *halves, strict=True):
        joined = jax.tree.map(lambda a, b: np.concatenate([a, b]), *parts)
        jax.tree.map(np.testing.assert_array_equal, joined, batch)


def test_resident_is_the_split_and_its_size_is_known():
    for split in (numbered(10), OneByOne(numbered(10))):
        whole = read_split(split)
        jax.tree.map(np.testing.assert_array_equal, whole, read_split(numbered(10)))
        assert size_in_bytes(split) == sum(x.nbytes for x in jax.tree.leaves(whole))


EXPERIMENT = Experiment(
    name="fed",
    tasks=(Classification(name="digit", num_classes=10), Regression(name="value", scale=3.0)),
    data=Data(source="digits", batch_size=64, augment="affine"),
    trunk="mlp:widths=(16,)",
    schedule="constant",
    steps=30,
    log_every=10,
)


def trained(keep, workers=0, start=0, state=None):
    """Parameters after steps start ... 30, and the losses of the last chunk."""
    data = Data(
        source="digits", batch_size=64, augment="affine", keep_on_device=keep, workers=workers
    )
    programs = Programs(set_up(Experiment(**{**vars(EXPERIMENT), "data": data})))
    state = programs.create(0) if state is None else state
    runner = programs.executor([0], start)
    middle = None
    while start < 30:
        if start == 20:
            middle = jax.tree.map(lambda x: x.copy(), state)
        state, logs = runner.run(state, start, 10)
        start += 10
    return jax.device_get(state.params), logs.values["loss"]["digit"], middle


@pytest.fixture(scope="module")
def from_memory():
    return trained("yes")


@pytest.mark.parametrize("workers", full_except([0], [0, 1]), ids=["threads", "a process"])
def test_streamed_data_trains_as_data_on_the_device_does(workers, from_memory):
    # Two compiled programs of the same step (one has a loop in it): XLA may round them differently.
    params, loss, _ = trained("no", workers)
    np.testing.assert_allclose(loss, from_memory[1], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, from_memory[0]
    )


def test_training_goes_on_in_the_middle_of_an_epoch(from_memory):
    params, loss, middle = from_memory
    again, loss_again, _ = trained("yes", start=20, state=middle)
    np.testing.assert_array_equal(loss_again, loss)
    jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.full
@pytest.mark.parametrize("devices", [1, 8])
def test_steps_do_not_queue_on_devices_that_share_the_threads_of_a_cpu(devices):
    queued = []

    class Watched(HostDataProgram):
        last = None

        def __call__(self, state, batch):
            queued.append(self.last is not None and not self.last.is_ready())
            state, self.last = super().__call__(state, batch)
            return state, self.last

    def slow(state, batch):
        slowly = jax.lax.fori_loop(0, 3000, lambda _, x: jnp.tanh(x @ x), batch[0])
        return state + slowly.mean(), slowly.sum()

    placement = parallel.place(8, devices)
    runner = HostDataExecutor(
        Watched(slow, placement), iter([np.ones((8, 64, 64), np.float32)] * 5)
    )
    runner.run(placement.replicate(np.float32(0)), 0, 4)
    assert any(queued) == (devices == 1)


def test_the_next_batch_is_on_its_way_while_the_device_works():
    asked = []

    def batches():
        for i in range(3):
            asked.append(i)
            yield np.full(8, i, np.float32)

    placement = parallel.place(8, 8)
    program = HostDataProgram(lambda state, batch: (state + batch.sum(), batch.sum()), placement)
    runner = HostDataExecutor(program, batches())
    state, logs = runner.run(placement.replicate(np.float32(0)), 0, 1)
    assert asked == [0, 1]
    state, more = runner.run(state, 1, 2)
    assert [*logs.values, *more.values] == [0, 8, 16]
    assert float(state) == 24
    assert pipeline.stack([{"a": 1}, {"a": 2}])["a"].tolist() == [1, 2]
