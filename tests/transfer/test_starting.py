"""Runs that start from weights: every kind of run gets them, and only at its first step."""

import dataclasses
import json
import shutil

import numpy as np
import pyrage
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.cli import without_announcements

from mtljax.comparison.compare import compare
from mtljax.config import Data, Experiment, from_json, to_json
from mtljax.main import main
from mtljax.runs.checkpoints import Checkpoints
from mtljax.runs.encryption import parse_keys
from mtljax.runs.load import load_run
from mtljax.runs.signing import sign
from mtljax.tasks import Classification, Regression
from mtljax.training.loop import train_group
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up
from mtljax.utils.tree import flatten

EXPERIMENT = Experiment(
    name="other",
    tasks=(
        Classification(name="digit", num_classes=10),
        Regression(name="half", center=4.5, scale=2.9),
    ),
    data=Data(source="digits", batch_size=32, labels={"half": "value"}),
    trunk="mlp:widths=(16,)",
    steps=4,
    optimizer="sgd",
    schedule="constant",
    log_every=2,
    eval_every=2,
    telemetry_every=0,
)
STILL = {"steps": 2, "learning_rate": 1e-30}
"""Of runs that do not move, so that their checkpoints show where they started."""


def starting_from(path, **fields):
    return dataclasses.replace(EXPERIMENT, init=str(path), **fields)


@pytest.fixture
def source(trained_run):
    """The variables that runs start from, by path."""
    state = load_run(trained_run).state
    return flatten({"params": state.ema, **state.model_state})


def saved(folder, keys=None):
    """The variables in the last checkpoint of a run, by path."""
    checkpoints = Checkpoints(folder, read_only=True, keys=keys)
    state = checkpoints.restore_for_inference(checkpoints.latest())
    checkpoints.close()
    return flatten({"params": state.params, **state.model_state})


def assert_trunk(found, source):
    trunk = [path for path in found if "/trunk_" in path]
    assert trunk
    for path in [*trunk, "constants/mean", "constants/std"]:
        np.testing.assert_array_equal(found[path].ravel(), source[path].ravel(), err_msg=path)


def test_the_trunk_starts_from_the_run_and_heads_start_fresh(trained_run, source):
    programs = Programs(set_up(starting_from(trained_run, ema=0.9), devices=1))
    states = [programs.create(seed) for seed in (0, 1)]
    for state in states:
        assert_trunk(flatten({"params": state.params, **state.model_state}), source)
        assert_trunk(flatten({"params": state.ema, **state.model_state}), source)
    kernels = [np.asarray(s.params["task_digit"]["Dense_0"]["kernel"]) for s in states]
    assert (kernels[0] != kernels[1]).all()
    assert (kernels[0] != source["params/task_digit/Dense_0/kernel"]).all()
    assert (
        programs.setup.initial.report[1]
        == "randomly initialized: task_digit/Dense_0, task_half/Dense_0"
    )


@pytest.mark.full
def test_going_on_and_using_a_run_does_not_need_what_it_started_from(trained_run, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(trained_run, source)
    experiment = starting_from(source)

    def run(name, programs, progress=lambda step: None):
        train_group(
            [experiment], [tmp_path / name], programs, quiet=True, report=False, progress=progress
        )

    def interrupt(step):
        if step == 2:
            raise KeyboardInterrupt

    programs = Programs(set_up(experiment, devices=1))
    run("undisturbed", programs)
    with pytest.raises(KeyboardInterrupt):
        run("run", programs, interrupt)
    shutil.rmtree(source)
    run("run", Programs(set_up(experiment, devices=1)))
    ours, theirs = saved(tmp_path / "run"), saved(tmp_path / "undisturbed")
    assert ours.keys() == theirs.keys()
    for path, leaf in ours.items():
        assert leaf.tobytes() == theirs[path].tobytes(), path
    assert load_run(tmp_path / "run").step == load_run(tmp_path / "undisturbed").step
    with pytest.raises(ValueError, match="initial weights .* do not exist"):
        run("new", Programs(set_up(experiment, devices=1)))
    assert not (tmp_path / "new").exists()


def test_an_encrypted_run(trained_run, source, tmp_path, monkeypatch):
    identity, folder = str(pyrage.x25519.Identity.generate()), tmp_path / "secret"
    shutil.copytree(trained_run, folder, ignore=shutil.ignore_patterns("checkpoints"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "encrypt": True}))
    checkpoints = Checkpoints(folder, keys=parse_keys(identity, "KEY"))
    checkpoints.save(load_run(trained_run).state, 0.0)
    checkpoints.close()
    programs = Programs(set_up(starting_from(folder), devices=1))
    with pytest.raises(ValueError, match="no key to encrypt or decrypt with"):
        programs.create(0)
    monkeypatch.setenv("MTLJAX_KEY", identity)
    state = programs.create(0)
    assert_trunk(flatten({"params": state.params, **state.model_state}), source)


@pytest.fixture
def keys(tmp_path):
    """(private, public) key files to sign and verify with."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem, public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "private.pem").write_bytes(private)
    (tmp_path / "public.pem").write_bytes(key.public_key().public_bytes(pem, public))
    return tmp_path / "private.pem", tmp_path / "public.pem"


@pytest.mark.full
def test_by_the_command_line_with_a_signature_and_in_config_json(
    trained_run, source, keys, tmp_path, capsys
):
    folder, config = tmp_path / "source", tmp_path / "config.json"
    shutil.copytree(trained_run, folder)
    config.write_text(json.dumps(to_json(EXPERIMENT)))
    arguments = ["--experiment", str(config), "--workdir", str(tmp_path / "run")]
    arguments += ["--steps", "2", "--learning-rate", "1e-30", "--init", str(folder)]
    arguments += ["--verify", str(keys[1])]
    assert main(arguments) == 2
    assert "source is not signed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    sign(folder, keys[0])
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert f"2 of 2 modules of the trunk initialized from {folder} (mtljax names)\n" in out
    assert "unused: task_digit/Dense_0, task_value/Dense_0\n" in out
    assert_trunk(saved(tmp_path / "run"), source)
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert from_json(written) == starting_from(folder, **STILL)


@pytest.mark.slow
def test_every_member_of_a_comparison_starts_from_it(trained_run, source, tmp_path):
    experiment = starting_from(trained_run, **STILL)
    asked = {"balancers": ("ew", "pcgrad"), "fusions": ("none", "cross_stitch"), "seeds": 2}
    _, failures = compare(experiment, tmp_path / "all", devices=1, quiet=True, **asked)
    assert not failures
    folders = [path.parent for path in (tmp_path / "all").glob("members/*/*/result.json")]
    assert len(folders) == 2 * (2 + 4)
    for folder in folders:
        found = saved(folder)
        plain = {path.replace("digit_trunk", "trunk"): leaf for path, leaf in found.items()}
        assert_trunk({p: x for p, x in plain.items() if "half_trunk" not in p}, source)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--init", "nowhere"], "initial weights nowhere do not exist"),
        (["--init", "RUN", "--trunk", "mlp:widths=(8,)"], "choose the trunk of the weights"),
        (["--init", "RUN", "--init-part", "heads"], "--init-part cannot be 'heads'"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(flags, message, trained_run, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(to_json(EXPERIMENT)))
    flags = [str(trained_run) if flag == "RUN" else flag for flag in flags]
    run = ["--workdir", str(tmp_path / "run")]
    assert main(["--experiment", str(tmp_path / "config.json"), *run, *flags]) == 2
    out, err = capsys.readouterr()
    assert without_announcements(out) == ""
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
