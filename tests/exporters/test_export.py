"""Exported runs: used in processes without mtljax, they say what the run says."""

import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pyrage
import pytest
from support.exporters import (
    BLOCKED,
    FORMATS,
    NETWORKS,
    alone,
    assert_equal,
    needs_onnx,
    used_alone,
    written,
)

from mtljax.exporters import EXPORTS
from mtljax.exporters.model import model_of
from mtljax.main import main
from mtljax.runs.encrypted_store import read_encrypted
from mtljax.runs.encryption import parse_keys
from mtljax.runs.folder import CONFIG
from mtljax.runs.load import load_run
from mtljax.utils.safetensors import unpack
from mtljax.utils.tree import flatten


def images(count, shape=(8, 8, 1), seed=0):
    return np.random.default_rng(seed).uniform(0, 16, (count, *shape)).astype(np.float32)


def exported(run, to, file, *flags):
    """Exports by the command line."""
    command = ["export", "--run", str(run), "--to", to, "--output", str(file), *flags]
    assert main(command) == 0
    return file


@pytest.fixture(scope="module")
def model(trained_run):
    return model_of(load_run(trained_run))


@pytest.mark.parametrize("to", NETWORKS)
def test_an_export_says_without_mtljax_what_the_run_says(to, model, trained_run, tmp_path, capsys):
    file = exported(trained_run, to, tmp_path / "model")
    assert "digit/prediction" in capsys.readouterr().out
    batches = [images(1), images(5)]
    for batch, found in zip(batches, used_alone(to, file, batches, tmp_path), strict=True):
        assert_equal(found, jax.jit(model.outputs)(batch))


def test_the_weights_are_those_of_the_best_checkpoint(model, trained_run, tmp_path):
    file = exported(trained_run, "safetensors", tmp_path / "weights")
    found, expected = unpack(file.read_bytes(), "it"), flatten(model.variables)
    assert found.keys() == expected.keys()
    assert {"params/task_digit/Dense_0/kernel", "constants/mean"} <= found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def described(to, file):
    """The description that is in a file or beside it."""
    if to == "stablehlo":
        return json.loads(file.with_name(f"{file.name}.json").read_text())
    if to == "onnx":
        import onnx

        words = {prop.key: prop.value for prop in onnx.load(file).metadata_props}
    else:
        import safetensors

        with safetensors.safe_open(file, "numpy") as opened:
            words = opened.metadata()
    return {key: text if key == "mtljax" else json.loads(text) for key, text in words.items()}


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_describes_itself(to, model, trained_run, tmp_path):
    found = described(to, exported(trained_run, to, tmp_path / "model"))
    assert found["config"] == json.loads((trained_run / CONFIG).read_text())
    image = found["input"]
    assert (image["shape"], image["dtype"]) == (["b", 8, 8, 1], "float32")
    assert (image["black"], image["white"]) == (0.0, 16.0)
    assert found["outputs"]["digit/output"] == {"shape": ["b", 10], "dtype": "float32"}
    assert found["outputs"]["digit/prediction"] == {"shape": ["b"], "dtype": "int32"}
    assert "logits [B, C]" in found["tasks"]["digit"]["output"]


@pytest.mark.parametrize("to", FORMATS)
def test_nothing_of_an_encrypted_export_is_written_in_the_clear(
    to, trained_run, tmp_path, monkeypatch
):
    identity = pyrage.x25519.Identity.generate()
    monkeypatch.setenv("MTLJAX_KEY", str(identity))
    with written() as paths:
        exported(trained_run, to, tmp_path / "secret", "--encrypt")
    ours = [path for path in paths if not path.startswith("/dev/")]
    assert ours
    assert all(path.endswith(".age.part") for path in ours), ours
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["secret.age", "secret.json.age"][: 1 + (to == "stablehlo")]
    plain = exported(trained_run, to, tmp_path / "plain").read_bytes()
    keys = parse_keys(str(identity), "KEY")
    assert len(read_encrypted(tmp_path / "secret.age", keys, "it")) == len(plain)


ROOT = Path(__file__).parents[2]


def shown(to, word):
    """The lines of Python by which a page says that a format is used, with what marks them."""
    pages = [ROOT / "README.md", ROOT / "docs" / "export.md"]
    blocks = [
        b for p in pages for b in re.findall(r"^```python\n(.*?)^```", p.read_text(), re.M | re.S)
    ]
    marks = needs_onnx if to == "onnx" else ()
    return [pytest.param(to, block, marks=marks) for block in blocks if word in block]


@pytest.mark.full
@pytest.mark.parametrize(
    ("to", "block"), shown("stablehlo", "jax.export") + shown("onnx", "onnxruntime")
)
def test_the_lines_that_are_shown_do_what_they_say(to, block, trained_run, tmp_path):
    assert len([line for line in block.splitlines() if line.strip()]) <= 4
    (file,) = re.findall(rf'"([^"]+\.{to})"', block)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    exported(trained_run, to, tmp_path / file)
    assert len(alone(block, BLOCKED[to], tmp_path).split()) >= 10  # two numbers of five images


@pytest.mark.full
@pytest.mark.parametrize("to", NETWORKS)
def test_bytes_go_in_where_the_training_images_were_bytes(to, trained_run, tmp_path):
    model = model_of(load_run(trained_run)._replace(dtype="uint8"))
    (tmp_path / to).write_bytes(EXPORTS[to](model)[""])
    batch = images(3).astype(np.uint8)
    (found,) = used_alone(to, tmp_path / to, [batch], tmp_path)
    assert_equal(found, jax.jit(model.outputs)(batch.astype(np.float32)))


def test_every_format_is_tried():
    names = [to if isinstance(to, str) else to.values[0] for to in FORMATS]
    assert names == list(EXPORTS)


def refused(capsys, *arguments):
    """The line that a command ends in."""
    capsys.readouterr()
    assert main(["export", *map(str, arguments)]) == 2
    line = capsys.readouterr().err
    assert line.startswith("mtljax: ")
    assert line.count("\n") == 1
    return line


def test_what_cannot_be_exported_is_said_in_one_line(trained_run, tmp_path, capsys, monkeypatch):
    run = ("--run", trained_run, "--to")
    assert "did you mean 'onnx'?" in refused(capsys, *run, "onx")
    assert "no folder" in refused(capsys, *run, "onnx", "--output", tmp_path / "a" / "b")
    assert "no run folder" in refused(capsys, "--run", tmp_path / "none", "--to", "onnx")
    monkeypatch.delenv("MTLJAX_KEY", raising=False)
    assert "no key to encrypt" in refused(capsys, *run, "onnx", "--encrypt")
    public = tmp_path / "sign.pub"
    public.write_text("not read before the signature is looked for")
    assert "is not signed" in refused(capsys, *run, "onnx", "--verify", public)
    assert [path.name for path in tmp_path.iterdir()] == ["sign.pub"]


def test_what_is_not_installed_is_said(trained_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    output = tmp_path / "model.onnx"
    line = refused(capsys, "--run", trained_run, "--to", "onnx", "--output", output)
    assert "pip install 'mtljax[onnx]'" in line
    assert not output.exists()
