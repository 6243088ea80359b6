"""Packing: arrays come back bit for bit, and nothing else is made of what is no such file."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.utils.safetensors import DTYPES, pack, unpack


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_type_comes_back_bit_for_bit(dtype):
    bits = np.random.default_rng(0).bytes(24 * np.dtype(dtype).itemsize)
    bits = bytes(b & 1 for b in bits) if dtype is np.bool_ else bits
    array = np.frombuffer(bits, dtype).reshape(2, 3, 4)
    found = unpack(pack({"x": array}), "it")["x"]
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, bits)


def test_any_shape_and_layout_comes_back():
    grid = np.arange(6.0).reshape(2, 3)
    arrays = {
        "scalar": np.asarray(np.float32(3)),
        "empty": np.zeros((0, 3)),
        "transposed": grid.T,
        "reversed": grid[:, ::-1],
        "a:b:0": grid,
    }
    found = unpack(pack(arrays), "it")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape


def test_what_is_packed_is_a_copy():
    array = np.ones(3)
    data = pack({"x": array})
    array[:] = 2
    assert (unpack(data, "it")["x"] == 1).all()


def test_a_type_without_a_word_is_refused():
    with pytest.raises(ValueError, match="x is int4, which safetensors does not support"):
        pack({"x": np.zeros(3, jnp.int4)})


def with_header(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04K*.",  # a pickle
        (1 << 60).to_bytes(8, "little"),
        with_header(b"{" * 100_000),
        with_header({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        with_header({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
        with_header({"x": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}),
        with_header({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"1234"),
        with_header({"x": {"dtype": "O", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        with_header({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678"),
        pack({"x": np.ones(3)})[:-1],
        pack({"x": np.ones(3)}) + b"more",
    ],
)
def test_what_is_no_such_file_is_refused_in_one_line(data):
    with pytest.raises(ValueError, match="it is no safetensors file") as error:
        unpack(data, "it")
    assert "\n" not in str(error.value)
