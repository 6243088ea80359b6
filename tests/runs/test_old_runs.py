"""Runs of the code of commit 18fa6f0, used by the present code through the command line.

The runs and what that code computed with them are in `fixtures/old_runs`; see README.md there.
"""

import csv
import json
import os
import shutil
from pathlib import Path

import jax
import jax.export
import numpy as np
import pyrage
import pytest
from safetensors.numpy import load
from support.tiers import full_except

from mtljax.main import main
from mtljax.models import batch_statistics, cnn

OLD = Path(__file__).parents[1] / "fixtures" / "old_runs"

# Verbs and flags: only these lines change when the command line does.
EVALUATE = ("evaluate", "--split", "test")
PREDICT = ("predict",)
EXPORT = ("export",)
GO_ON = ("train",)
"""Resumes a run; draws the report of a finished one that has none."""
COMPARE = ("compare", "--seeds", "2", "--together", "yes")
RUN, WORKDIR, EXPERIMENT, OUTPUT = "--run", "--workdir", "--experiment", "--output"
BALANCERS, FORMAT, QUIET = "--balancers", "--to", "--quiet"
KEY = "MTLJAX_KEY_FILE"

USED, RESUMED = 1e-5, 1e-4
"""Tolerances: absolute up to 1, relative above."""
CLOCK = ("seconds", "examples_per_second")
IMAGES = [OLD / "images" / name for name in ("0.png", "1.png", "2.npy")]


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """Function that copies a run of the fixtures and sets its key, if it has one."""

    def copied(name):
        shutil.copytree(OLD / name / "run", tmp_path / "run")
        if (key := OLD / name / "test_only_key.txt").exists():
            monkeypatch.setenv(KEY, str(key))
        return tmp_path / "run"

    return copied


def call(*arguments):
    assert main([*map(str, arguments)]) == 0


def read(file):
    return json.loads(file.read_text())


def assert_close(found, expected, tolerance, at=""):
    """Assert that all that is expected is found, numbers within a tolerance; more keys may be."""
    if isinstance(expected, dict):
        assert expected.keys() <= found.keys(), at
        for key, value in expected.items():
            assert_close(found[key], value, tolerance, f"{at}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), at
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_close(one, other, tolerance, f"{at}/{i}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance), at
    else:
        assert found == expected, at


def assert_arrays_close(found, name, part, tolerance):
    """Compare with the arrays of a part (`output`, `weight`) of expected.npz, by name."""
    with np.load(OLD / name / "expected.npz") as arrays:
        expected = {
            key.removeprefix(f"{part} "): arrays[key]
            for key in arrays.files
            if key.startswith(f"{part} ")
        }
    assert expected
    assert found.keys() == expected.keys()
    for key, wanted in expected.items():
        assert (found[key].shape, found[key].dtype) == (wanted.shape, wanted.dtype), key
        np.testing.assert_allclose(
            found[key], wanted, rtol=tolerance, atol=tolerance, err_msg=key, strict=True
        )


def exported_weights(run, output):
    call(*EXPORT, RUN, run, FORMAT, "safetensors", OUTPUT, output)
    if (encrypted := output.with_name(f"{output.name}.age")).exists():
        text = Path(os.environ[KEY]).read_text()
        identity = pyrage.x25519.Identity.from_str(text.split()[-1])
        return load(pyrage.decrypt(encrypted.read_bytes(), [identity]))
    return load(output.read_bytes())


def contents(folder, *patterns):
    """Bytes and modification time of files, by path."""
    found = (file for pattern in patterns for file in folder.glob(pattern))
    files = [file for file in found if file.is_file()]
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


@pytest.mark.parametrize(
    "name", full_except(["finished", "encrypted"], ["finished", "finished_cnn", "encrypted"])
)
def test_evaluate_and_predict_say_the_same(name, copy, tmp_path):
    run, expected = copy(name), read(OLD / name / "expected.json")
    call(*EVALUATE, RUN, run, OUTPUT, tmp_path / "evaluation.json")
    assert_close(read(tmp_path / "evaluation.json"), expected["evaluate"], USED)
    call(*PREDICT, RUN, run, OUTPUT, tmp_path / "predictions.json", *IMAGES)
    assert_close(read(tmp_path / "predictions.json"), expected["predict"], USED)


@pytest.mark.parametrize("name", full_except(["finished"], ["finished", "finished_cnn"]))
def test_an_export_computes_the_same(name, copy, tmp_path):
    run = copy(name)
    call(*EXPORT, RUN, run, FORMAT, "stablehlo", OUTPUT, tmp_path / "model")
    function = jax.export.deserialize(bytearray((tmp_path / "model").read_bytes()))
    outputs = jax.device_get(function.call(np.load(OLD / "images" / "batch.npy")))
    assert_arrays_close(outputs, name, "output", USED)


@pytest.mark.parametrize("name", ["finished", "finished_cnn", "encrypted"])
def test_exported_weights_are_the_same(name, copy, tmp_path):
    weights = exported_weights(copy(name), tmp_path / "weights")
    assert_arrays_close(weights, name, "weight", USED)


@pytest.mark.parametrize(
    "name", full_except(["finished"], ["finished", "finished_cnn", "encrypted"])
)
def test_the_report_is_drawn_again(name, copy):
    run = copy(name)
    trained = ("config.json", "result.json", "metrics.jsonl", "checkpoints/**/*.*")
    before = contents(run, *trained)
    assert not (run / "report.html").exists()
    call(*GO_ON, EXPERIMENT, run / "config.json", WORKDIR, run, QUIET)
    page = (run / "report.html").read_text()
    assert all(word in page for word in ("<html", "digit", "value"))
    assert contents(run, *trained) == before


@pytest.mark.full
def test_an_interrupted_run_goes_on_to_the_same_end(copy, tmp_path):
    run, expected = copy("interrupted"), read(OLD / "interrupted" / "expected.json")
    before = (run / "metrics.jsonl").read_text()
    call(*GO_ON, EXPERIMENT, run / "config.json", WORKDIR, run, QUIET)
    after = (run / "metrics.jsonl").read_text()
    assert after.startswith(before)  # it did not begin anew
    without_clock = lambda line: {key: line[key] for key in line if key not in CLOCK}
    lines = [without_clock(json.loads(line)) for line in after.splitlines()]
    assert_close(lines, list(map(without_clock, expected["lines"])), RESUMED)
    assert_close(read(run / "result.json"), expected["result"], RESUMED)
    weights = exported_weights(run, tmp_path / "weights")
    assert_arrays_close(weights, "interrupted", "weight", RESUMED)


def compared(file):
    """Rows of a CSV file, with numbers as floats."""

    def value(text):
        try:
            return float(text)
        except ValueError:
            return text

    with file.open() as opened:
        return [{key: value(text) for key, text in row.items()} for row in csv.DictReader(opened)]


def test_a_comparison_shows_the_same_table_and_trains_nothing(copy, capsys):
    folder = copy("comparison")
    (config,) = folder.glob("members/ew-digit-value-*/seed-0/config.json")
    before = contents(folder, "members/*/*/*.json*")
    assert len(before) == 4 * 2 * 4
    call(*COMPARE, EXPERIMENT, config, BALANCERS, "ew", "pcgrad", WORKDIR, folder)
    assert contents(folder, "members/*/*/*.json*") == before
    assert not list(folder.glob("members/*/*/checkpoints/*"))
    expected = compared(OLD / "comparison" / "expected.csv")
    assert_close(compared(folder / "results.csv"), expected, USED)
    shown = capsys.readouterr().out
    assert all(row["method"] in shown for row in expected)


@pytest.fixture
def old_running_averages(monkeypatch):
    """Updates the statistics of batch normalization as that code did; see CHANGELOG.md."""
    monkeypatch.setattr(batch_statistics, "WARM_UP", 0)
    defaults = cnn.__wrapped__.__defaults__
    assert defaults[-1] == 0.9
    monkeypatch.setattr(cnn.__wrapped__, "__defaults__", (*defaults[:-1], 0.99))


@pytest.mark.full
@pytest.mark.usefixtures("old_running_averages")
def test_an_interrupted_comparison_goes_on_side_by_side(copy):
    folder, expected = copy("joint"), read(OLD / "joint" / "expected.json")
    (config,) = folder.glob("members/pcgrad-*/seed-0/config.json")
    finished = contents(folder, "members/ew-*/*/*.json*")
    lines = contents(folder, "members/pcgrad-*/*/metrics.jsonl")
    assert len(lines) == 2
    call(*COMPARE, EXPERIMENT, config, BALANCERS, "pcgrad", WORKDIR, folder, QUIET)
    assert contents(folder, "members/ew-*/*/*.json*") == finished
    for file, (before, _) in lines.items():
        assert file.read_bytes().startswith(before)  # it did not begin anew
    results = {
        str(file.parent.relative_to(folder)): read(file)
        for file in folder.glob("members/*/*/result.json")
    }
    assert results.keys() == expected.keys()
    assert_close(results, expected, RESUMED)
