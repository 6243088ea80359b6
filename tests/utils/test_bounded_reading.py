"""Damaged arrays: the message has no content of the file."""

import zipfile

import numpy as np
import pytest

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
