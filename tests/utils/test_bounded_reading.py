"""Damaged arrays: the message has no content of the file."""

import gc
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from mtljax.tasks.parsing import read_json
from mtljax.utils.bounded_reading import read_npy, read_npz

SECRET = b"password"
DAMAGED = {
    "no magic string": SECRET * 20,
    "no header": b"\x93NUMPY\x01\x00\x40\x00" + SECRET * 20,
    "no dictionary": b"\x93NUMPY\x01\x00\x40\x00{'" + SECRET * 20,
    "version": b"\x93NUMPY\x09\x00" + SECRET * 20,
    "nothing": b"",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_messages_do_not_quote_damaged_arrays(damage, tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(DAMAGED[damage])
    with pytest.raises(ValueError, match="no npy file of numbers, or a damaged one") as npy:
        read_npy(path)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", DAMAGED[damage])
    with pytest.raises(ValueError, match=r"a\.npy is no npy file, or a damaged one") as npz:
        read_npz(tmp_path / "a.npz")
    assert "pass" not in str(npy.value) + str(npz.value)


def test_every_version_of_the_format_is_read(tmp_path):
    for version in ((1, 0), (2, 0), (3, 0)):
        with (tmp_path / "a.npy").open("wb") as file:
            np.lib.format.write_array(file, np.arange(3), version=version)
        assert read_npy(tmp_path / "a.npy").tolist() == [0, 1, 2]


def test_arrays_of_objects_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.asarray([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="no npy file of numbers"):
        read_npy(tmp_path / "a.npy")


@pytest.fixture
def frequent_switches():
    """Threads that take turns often, also in collections of garbage, which are frequent."""
    jax.jit(lambda x: x + 1)(1.0)  # registers JAX's function for collections
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(20)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)


def test_threads_read_headers_and_literals_at_the_same_time(frequent_switches, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((24, 48, 3), np.uint8))

    def read(_):
        for _ in range(300):
            assert read_npy(tmp_path / "a.npy").shape == (24, 48, 3)
            assert read_json("['a', (1, 2)]") == ["a", (1, 2)]
            assert [[i] for i in range(50)]  # garbage

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(read, range(16)))
