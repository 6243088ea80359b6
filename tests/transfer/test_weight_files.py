"""Reading weights: where they may be, what is said when they cannot be read."""

import json
import sys

import numpy as np
import pyrage
import pytest

from mtljax.exporters.export import export
from mtljax.runs.encrypted_store import write_encrypted
from mtljax.runs.encryption import parse_keys
from mtljax.runs.load import load_run
from mtljax.transfer import locate, read
from mtljax.utils.safetensors import pack

ARRAYS = {"params/fusion/trunk_0/Dense_0/bias": np.arange(3.0, dtype=np.float32)}
EXPORT = pack(ARRAYS, {"input": json.dumps({"black": 0.0, "white": 16.0})})


def test_a_run_gives_its_averaged_parameters_and_its_unit(trained_run):
    stored, state = read(trained_run), load_run(trained_run).state
    bias = stored.arrays["params/fusion/trunk_0/Dense_0/bias"]
    np.testing.assert_array_equal(bias, state.ema["fusion"]["trunk_0"]["Dense_0"]["bias"])
    assert (stored.low, stored.high) == (0.0, 16.0)
    assert {name.split("/")[0] for name in stored.arrays} == {"params", "constants"}


def test_an_export_says_what_black_and_white_are_and_other_files_do_not(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(EXPORT)
    (tmp_path / "b.safetensors").write_bytes(pack(ARRAYS, {"input": "what?"}))
    (tmp_path / "c.safetensors").write_bytes(pack(ARRAYS))
    found = [read(tmp_path / f"{name}.safetensors") for name in "abc"]
    assert [(x.low, x.high) for x in found] == [(0.0, 16.0), (None, None), (None, None)]
    for stored in found:
        (name,) = stored.arrays
        np.testing.assert_array_equal(stored.arrays[name], ARRAYS[name])


def test_what_is_exported_of_a_run_is_what_the_run_gives(trained_run, tmp_path):
    path = tmp_path / "digits.safetensors"
    export(trained_run, "safetensors", path)
    ours, theirs = read(path), read(trained_run)
    assert (ours.low, ours.high) == (theirs.low, theirs.high)
    assert ours.arrays.keys() == theirs.arrays.keys()
    for name, array in ours.arrays.items():
        np.testing.assert_array_equal(array, theirs.arrays[name])


def test_an_encrypted_export_is_opened_with_the_key(tmp_path, monkeypatch):
    identity, path = str(pyrage.x25519.Identity.generate()), tmp_path / "a.safetensors.age"
    write_encrypted(path, EXPORT, parse_keys(identity, "KEY"))
    with pytest.raises(ValueError, match="no key to encrypt or decrypt with"):
        read(path)
    monkeypatch.setenv("MTLJAX_KEY", identity)
    assert read(path).arrays.keys() == ARRAYS.keys()


def test_a_file_in_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "weights_of_somebody"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "a.pth").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert locate("package:weights_of_somebody/a.pth") == package / "a.pth"
    assert "weights_of_somebody" not in sys.modules


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("nowhere", "initial weights nowhere do not exist: init takes a run folder, a .safet"),
        ("package:not_there/x.pth", "needs the package not_there: pip install not-there$"),
        ("package:os.path/x.pth", "needs the package os.path"),
        ("package:pathlib/x.pth", "needs the package pathlib"),
        ("package:/x.pth", "needs the package"),
    ],
)
def test_what_is_not_there(init, message):
    with pytest.raises(ValueError, match=message):
        locate(init)


def test_a_folder_that_is_no_run_and_a_file_of_another_kind(tmp_path):
    with pytest.raises(ValueError, match="is not a run folder: it has no config.json"):
        read(tmp_path)
    (tmp_path / "a.h5").touch()
    with pytest.raises(ValueError, match="a.h5 has an unknown file name suffix"):
        read(tmp_path / "a.h5")


def test_without_pytorch_its_files_need_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "a.pth").touch()
    with pytest.raises(ValueError, match=r"a.pth needs torch: pip install 'mtljax\[torch\]'"):
        read(tmp_path / "a.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_state_dicts_of_any_age_and_in_any_wrapping(legacy, tmp_path):
    torch = pytest.importorskip("torch")
    weights = {"fc.weight": torch.arange(6.0).reshape(2, 3), "half": torch.ones(2).bfloat16()}
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
    for content in (weights, wrapped, {"epoch": 3, "state_dict": wrapped}, {"model": weights}):
        path = tmp_path / "a.pth"
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        found = read(path).arrays
        assert found.keys() == weights.keys()
        np.testing.assert_array_equal(found["fc.weight"], [[0, 1, 2], [3, 4, 5]])
        assert found["half"].dtype == np.float32


def test_a_damaged_state_dict(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "a.pt"
    contents = {
        "a.pt is not a readable PyTorch state dict: it holds a list": [torch.ones(2)],
        "a.pt is damaged, or holds Python objects, which are never": torch.nn.Linear(2, 2),
    }
    for message, content in contents.items():
        torch.save(content, path)
        with pytest.raises(ValueError, match=message) as error:
            read(path)
        assert "\n" not in str(error.value)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="a.pt is not a readable PyTorch state dict"):
        read(path)
