"""Signatures: whatever is changed of a signed model is noticed before it is loaded."""

import json
import shutil
import sys

import numpy as np
import pyrage
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from PIL import Image
from support.cli import TRAINED, run

from mtljax.main import main
from mtljax.runs.load import load_run
from mtljax.runs.signing import sign, verify


def write_keys(folder, name, key, password=None):
    """PEM files of a private key and its public key."""
    encryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    pem, public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    private, other = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption))
    other.write_bytes(key.public_key().public_bytes(pem, public))
    return private, other


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """(private, public)"""
    folder = tmp_path_factory.mktemp("keys")
    return write_keys(folder, "own", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def signed(trained_run, keys, tmp_path):
    """A signed run folder."""
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    sign(folder, keys[0])
    return folder


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_a_signature_is_valid_wherever_the_folder_is(signed, keys, tmp_path, capsys):
    moved = tmp_path / "elsewhere"
    signed.rename(moved)
    assert main(["verify", "--run", str(moved), "--key", str(keys[1])]) == 0
    assert capsys.readouterr().out == f"the signature of {moved} is valid\n"


def test_what_is_written_beside_the_model_later_does_not_matter(signed, keys):
    (signed / "evaluation-test.json").write_text("{}")
    (signed / "predictions.json").write_text("{}")
    verify(signed, keys[1])


def test_the_program_of_the_standard_agrees(signed, keys):
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(signed)]
    command += ["--signature", str(signed / "model.sig"), "--public_key", str(keys[1])]
    command += ["--ignore_unsigned_files"]
    assert run(command).returncode == 0
    (signed / "config.json").write_text("{}")
    assert run(command).returncode != 0


def test_any_change_of_any_signed_file_is_noticed(signed, keys):
    files = [p for p in (signed / "checkpoints").rglob("*") if p.is_file()]
    files += [signed / name for name in ("config.json", "input.json", "result.json", "model.sig")]
    chance = np.random.default_rng(0)
    for path in files:
        data = path.read_bytes()
        changed = bytearray(data or b" ")
        if data:
            changed[chance.integers(len(data))] ^= 1 << int(chance.integers(7))
        for other in (bytes(changed), data[:-1] if data else b"x", data + b" "):
            path.write_bytes(other)
            with pytest.raises(ValueError, match=r"the signature of .* is invalid") as error:
                verify(signed, keys[1])
            assert "\n" not in str(error.value)
        path.write_bytes(data)
    verify(signed, keys[1])


def test_files_that_come_or_go_are_noticed(signed, keys, tmp_path):
    checkpoint = next(path for path in (signed / "checkpoints").iterdir() if path.is_dir())
    shutil.copytree(checkpoint, signed / "checkpoints" / "1000")
    with pytest.raises(ValueError, match=r"is invalid.*Extra files"):
        verify(signed, keys[1])
    shutil.rmtree(signed / "checkpoints" / "1000")
    verify(signed, keys[1])
    (signed / "checkpoints" / "1000").symlink_to(checkpoint)
    with pytest.raises(ValueError, match="is invalid"):
        verify(signed, keys[1])
    (signed / "checkpoints" / "1000").unlink()
    shutil.move(signed / "input.json", tmp_path / "input.json")
    with pytest.raises(ValueError, match=r"is invalid.*Missing files"):
        verify(signed, keys[1])
    (signed / "input.json").symlink_to(tmp_path / "input.json")
    with pytest.raises(ValueError, match="is invalid"):
        verify(signed, keys[1])


def test_nothing_loads_a_model_whose_signature_does_not_hold(signed, keys, tmp_path, capsys):
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    uses = (
        ["evaluate", "--run", signed, "--verify", keys[1]],
        ["predict", "--run", signed, "--verify", keys[1], tmp_path / "image.png"],
        [*TRAINED, "--workdir", signed, "--verify", keys[1], "--quiet"],
    )
    for arguments in uses:
        assert main([*map(str, arguments)]) == 0
    config = json.loads((signed / "config.json").read_text())
    (signed / "config.json").write_text(json.dumps(config))  # the same, spelt otherwise
    for arguments in uses:
        assert "the signature of" in refused(capsys, *arguments)
    (signed / "model.sig").unlink()
    for arguments in uses:
        assert "is not signed" in refused(capsys, *arguments)


def test_another_key_does_not_verify(signed, tmp_path, capsys):
    _, other = write_keys(tmp_path, "other", ec.generate_private_key(ec.SECP256R1()))
    line = refused(capsys, "verify", "--run", signed, "--key", other)
    assert "signed with another key" in line


def test_one_file(keys, tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    assert sign(weights, keys[0]) == tmp_path / "model.safetensors.sig"
    verify(weights, keys[1])
    weights.write_bytes(b"weight5")
    with pytest.raises(ValueError, match="is invalid"):
        verify(weights, keys[1])


def test_a_private_key_with_a_password(signed, tmp_path, monkeypatch, capsys):
    private, public = write_keys(
        tmp_path, "locked", ec.generate_private_key(ec.SECP384R1()), b"open sesame"
    )
    for password in ("", "guess"):
        monkeypatch.setenv("MTLJAX_SIGNING_PASSWORD", password)
        line = refused(capsys, "sign", "--run", signed, "--key", private)
        assert "MTLJAX_SIGNING_PASSWORD is its password" in line
    monkeypatch.setenv("MTLJAX_SIGNING_PASSWORD", "open sesame")
    assert main(["sign", "--run", str(signed), "--key", str(private)]) == 0
    verify(signed, public)


def test_keys_that_are_none(signed, keys, tmp_path, capsys):
    private, public = write_keys(tmp_path, "edwards", ed25519.Ed25519PrivateKey.generate())
    text = tmp_path / "text"
    text.write_text("no key")
    for key, reason in (
        (private, "is not a usable elliptic-curve private key"),
        (text, "is not a usable elliptic-curve private key"),
        (tmp_path / "nowhere", "cannot be read: No such file"),
        (keys[1], "is not a usable elliptic-curve private key"),
    ):
        assert reason in refused(capsys, "sign", "--run", signed, "--key", key)
    for key, reason in (
        (public, "is not a usable elliptic-curve public key"),
        (text, "is not a usable elliptic-curve public key"),
    ):
        assert reason in refused(capsys, "verify", "--run", signed, "--key", key)


def test_what_is_no_model_is_not_signed(keys, tmp_path, capsys):
    line = refused(capsys, "sign", "--run", tmp_path, "--key", keys[0])
    assert "is not a run folder: it has no config.json" in line
    assert "nowhere does not exist" in refused(
        capsys, "sign", "--run", tmp_path / "nowhere", "--key", keys[0]
    )


@pytest.mark.slow
def test_a_thousand_changes_of_an_encrypted_signed_model(keys, tmp_path, monkeypatch):
    monkeypatch.setenv("MTLJAX_KEY", str(pyrage.x25519.Identity.generate()))
    folder = tmp_path / "run"
    assert main([*TRAINED, "--encrypt", "--workdir", str(folder), "--quiet"]) == 0
    sign(folder, keys[0])
    files = [*(folder / "checkpoints").iterdir(), folder / "config.json", folder / "model.sig"]
    chance, whole = np.random.default_rng(0), {path: path.read_bytes() for path in files}
    for count in range(1100):
        path = files[count % len(files)]
        changed = bytearray(whole[path])
        at = int(chance.integers(len(changed)))
        changed[at] ^= int(chance.integers(1, 256))
        path.write_bytes(changed if count < 1000 else whole[path][:at])
        with pytest.raises(ValueError, match=r"^[^\n]*the signature of [^\n]*$"):
            load_run(folder, verify=keys[1])
        path.write_bytes(whole[path])
    load_run(folder, verify=keys[1])
