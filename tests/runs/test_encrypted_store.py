"""Encrypted checkpoints: what is on the disk, and what is refused."""

import numpy as np
import pyrage
import pytest

from mtljax.runs.encrypted_store import AgeStore
from mtljax.runs.encryption import parse_keys

ARRAYS = {"params:kernel": np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)}


@pytest.fixture
def identity():
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def keys(identity):
    return parse_keys(str(identity), "KEY")


def store(folder, keys, **settings):
    return AgeStore(folder, keys, **{"read_only": False, **settings})


@pytest.fixture
def saved(tmp_path, keys):
    """The file of a checkpoint."""
    made = store(tmp_path, keys)
    made.save(10, ARRAYS, 0.5)
    made.close()
    return tmp_path / "10.age"


def test_the_arrays_cannot_be_found_in_the_file(saved):
    data = saved.read_bytes()
    assert data.startswith(b"age-encryption.org/v1\n")
    plain = ARRAYS["params:kernel"].tobytes()
    assert plain[:8] not in data
    assert b"kernel" not in data


def test_every_change_of_a_byte_and_every_cut_is_noticed(saved, keys):
    data, chance = saved.read_bytes(), np.random.default_rng(1)
    changed = []
    for at in chance.integers(len(data), size=1000):
        other = bytearray(data)
        other[at] ^= chance.integers(1, 256)
        changed.append(bytes(other))
    changed += [data[:at] for at in chance.integers(len(data), size=100)]
    for wrong in changed:
        saved.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"10\.age cannot be decrypted") as error:
            store(saved.parent, keys, read_only=True).open(10)
        assert "\n" not in str(error.value)
    saved.write_bytes(data)
    assert set(store(saved.parent, keys, read_only=True).open(10).arrays) == set(ARRAYS)


def test_another_key_opens_nothing(saved):
    other = parse_keys(str(pyrage.x25519.Identity.generate()), "KEY")
    with pytest.raises(ValueError, match=r"10\.age cannot be decrypted.*was encrypted for"):
        store(saved.parent, other).best()


def test_with_public_keys_a_process_reads_only_what_it_wrote_itself(tmp_path, identity, keys):
    public = parse_keys(str(identity.to_public()), "KEY")
    writer = store(tmp_path, public)
    writer.save(10, ARRAYS, 0.5)
    assert writer.best() == 10
    assert set(writer.open(10).arrays) == set(ARRAYS)
    writer.close()
    with pytest.raises(ValueError, match="cannot be decrypted"):
        store(tmp_path, public).open(10)
    assert set(store(tmp_path, keys).open(10).arrays) == set(ARRAYS)


def test_what_a_killed_process_left_behind_is_no_checkpoint(saved, keys):
    (saved.parent / "20.age.part").write_bytes(saved.read_bytes()[:100])
    again = store(saved.parent, keys)
    assert again.steps() == [10]
    assert {path.name for path in saved.parent.iterdir()} == {"10.age"}


def test_plain_and_encrypted_checkpoints_do_not_mix(tmp_path, keys):
    (tmp_path / "10").mkdir()
    with pytest.raises(ValueError, match="has unencrypted checkpoints"):
        store(tmp_path, keys)


def test_a_disk_that_is_full_is_noticed(tmp_path, keys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    made = store(tmp_path, keys)
    made.save(10, ARRAYS, 0.5)
    with pytest.raises(OSError, match=r"No space left.*10\.age"):
        made.wait()
