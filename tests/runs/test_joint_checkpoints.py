"""Runs that are trained side by side save together, and lose nothing when they are interrupted."""

import contextlib
import dataclasses
import json
import signal

import jax
import numpy as np
import pyrage
import pytest
from support.comparison import SMALL as EXPERIMENT

from mtljax.comparison.member_training import rounds
from mtljax.comparison.members import Member
from mtljax.runs import joint_checkpoints
from mtljax.runs.checkpoints import Checkpoints, state_to_arrays
from mtljax.runs.encryption import parse_keys
from mtljax.runs.joint_checkpoints import JointCheckpoints, delete_joint, joint_step
from mtljax.training.loop import train_group
from mtljax.training.programs import Programs
from mtljax.training.recorder import Recorder
from mtljax.training.setup import set_up
from mtljax.training.stopping import Stopped

SEEDS = (0, 7, 3)


@pytest.fixture(scope="module")
def programs():
    return Programs(set_up(EXPERIMENT, devices=1))


def run(programs, folder, seeds=SEEDS, die_at=None):
    """Trains side by side, and is interrupted before a step."""

    def progress(step):
        if step == die_at:
            raise KeyboardInterrupt

    runs = [dataclasses.replace(programs.setup.experiment, seed=seed) for seed in seeds]
    folders = [folder / str(seed) for seed in seeds]
    return train_group(runs, folders, programs, quiet=True, report=False, progress=progress)


def outcome(folder, keys=None):
    """Everything that a finished run has learned, said and saved."""
    result = json.loads((folder / "result.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    checkpoints = Checkpoints(folder, read_only=True, keys=keys)
    saved = {
        step: {name: leaf.tobytes() for name, leaf in checkpoints.read(step).items()}
        for step in (checkpoints.best(), checkpoints.latest())
    }
    checkpoints.close()
    losses = [line["loss"] for line in lines if "loss" in line]
    scores = [line["score"] for line in lines if "score" in line]
    return result["test"], result["best_step"], losses, scores, saved


@pytest.fixture(scope="module")
def undisturbed(programs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run(programs, folder)
    return {seed: outcome(folder / str(seed)) for seed in SEEDS}


def test_an_interrupted_group_goes_on_bit_for_bit(programs, undisturbed, tmp_path):
    for die_at in (15, 20, 25):  # behind one evaluation; before a checkpoint is whole; behind two
        with pytest.raises(KeyboardInterrupt):
            run(programs, tmp_path, die_at=die_at)
        assert joint_step(tmp_path / "0", SEEDS) == die_at // 10 * 10
        assert not list(tmp_path.glob("*/checkpoints/*"))
    run(programs, tmp_path)
    assert {seed: outcome(tmp_path / str(seed)) for seed in SEEDS} == undisturbed
    assert not list(tmp_path.glob("*/joint*"))


def test_what_was_handed_out_is_handed_out_again(programs, undisturbed, tmp_path, monkeypatch):
    def die(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("mtljax.training.group.delete_joint", die)
    with pytest.raises(KeyboardInterrupt):
        run(programs, tmp_path)
    assert joint_step(tmp_path / "0", SEEDS) == 30
    assert not list(tmp_path.glob("*/result.json"))
    monkeypatch.undo()
    run(programs, tmp_path)
    assert {seed: outcome(tmp_path / str(seed)) for seed in SEEDS} == undisturbed


def test_a_failed_run_stays_failed_after_a_crash(programs, undisturbed, tmp_path, monkeypatch):
    add = Recorder.add

    def add_or_fail(self, step, *arguments):
        if self._experiment.seed == 7:
            raise Stopped(f"failed at step {step}")
        add(self, step, *arguments)

    def die(folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "add", add_or_fail)
        patch.setattr("mtljax.training.group.delete_joint", die)
        with pytest.raises(KeyboardInterrupt):
            run(programs, tmp_path)
    outcomes = run(programs, tmp_path)
    assert [isinstance(result, Stopped) for result in outcomes] == [False, True, False]
    assert not (tmp_path / "7" / "result.json").exists()
    for seed in (0, 3):
        assert outcome(tmp_path / str(seed)) == undisturbed[seed]


def test_sigterm_is_handled_until_the_last_checkpoint_is_written(programs, tmp_path, monkeypatch):
    handlers, close = [], JointCheckpoints.close

    def close_and_note(self):
        handlers.append(signal.getsignal(signal.SIGTERM))
        close(self)

    monkeypatch.setattr(JointCheckpoints, "close", close_and_note)
    run(programs, tmp_path)
    assert len(handlers) == 1
    assert handlers != [signal.getsignal(signal.SIGTERM)]


def test_the_rest_is_finished_from_checkpoints_of_their_own(programs, undisturbed, tmp_path):
    run(programs, tmp_path)
    (tmp_path / "7" / "result.json").unlink()
    (tmp_path / "3" / "result.json").unlink()
    run(programs, tmp_path, seeds=(7, 3))
    assert {seed: outcome(tmp_path / str(seed)) for seed in SEEDS} == undisturbed


def test_members_that_have_a_joint_checkpoint_go_on_together(programs, tmp_path):
    members = [Member(None, None, seed, tmp_path / str(seed)) for seed in SEEDS]
    with pytest.raises(KeyboardInterrupt):
        run(programs, tmp_path, die_at=15)
    assert list(rounds(members)) == [members]
    assert joint_step(tmp_path / "0", SEEDS) == 10
    assert joint_step(tmp_path / "0", SEEDS[:2]) == 0


@pytest.mark.full
def test_in_other_company_runs_begin_anew(programs, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(programs, tmp_path / "a", die_at=15)
    for name in ("a", "b"):
        run(programs, tmp_path / name, seeds=(0, 7))
    assert outcome(tmp_path / "a" / "7") == outcome(tmp_path / "b" / "7")
    assert not list(tmp_path.rglob("joint*"))


def test_what_is_of_other_runs_is_refused_in_one_line(programs, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(programs, tmp_path, die_at=15)
    other = dataclasses.replace(EXPERIMENT, trunk="mlp:widths=(9,),norm=none")
    like = Programs(set_up(other, devices=1))
    with (
        contextlib.closing(JointCheckpoints(tmp_path / "0", SEEDS)) as saved,
        pytest.raises(
            ValueError, match=r"joint belongs to other runs; delete that folder"
        ) as error,
    ):
        saved.restore(10, like.stack([like.restore_template()] * 3))
    assert "\n" not in str(error.value)
    for file in (tmp_path / "0" / joint_checkpoints.FOLDER).rglob("d/*"):
        file.write_bytes(b"?" * 100)
    with pytest.raises(ValueError, match=r"joint/checkpoints/10 is damaged; delete that"):
        run(programs, tmp_path)


@pytest.mark.full
def test_a_run_can_go_on_alone_after_all(programs, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(programs, tmp_path, die_at=15)
    for seed in SEEDS:
        run(programs, tmp_path, seeds=(seed,))
    assert all((tmp_path / str(seed) / "result.json").exists() for seed in SEEDS)
    assert not list(tmp_path.rglob("joint*"))


def test_best_and_last_of_each_and_of_a_failed_run_the_best(programs, tmp_path):
    states = [programs.create(seed) for seed in SEEDS]
    at = lambda step: programs.stack(
        [s.replace(step=np.int32(step), skipped=np.int32(step + i)) for i, s in enumerate(states)]
    )
    nan, found = np.nan, []
    scores = {10: (3.0, 1 / 3, 2.0), 20: (2.0, 2.0, nan), 30: (2.0, nan, nan)}
    with contextlib.closing(JointCheckpoints(tmp_path, SEEDS)) as saved:
        assert saved.latest() == 0
        for step in scores:
            saved.save(step, at(step), scores[step])
    with contextlib.closing(JointCheckpoints(tmp_path, SEEDS)) as saved:
        assert saved.latest() == 30
        restored = saved.restore(30, at(0))
        jax.tree.map(
            np.testing.assert_array_equal, state_to_arrays(restored), state_to_arrays(at(30))
        )
        assert saved._scores[0].tolist() == [2.0, 1 / 3, 2.0]
        runs = [Checkpoints(tmp_path / str(number)) for number in range(3)]
        saved.distribute(runs)
        for number, own in enumerate(runs):
            found.append((own.best(), own.latest()))
            for step in {own.best(), own.latest()}:
                assert own.read(step)["skipped"] == step + number
            own.close()
    assert found == [(30, 30), (10, 10), (10, 10)]
    delete_joint(tmp_path)
    assert not (tmp_path / joint_checkpoints.FOLDER).exists()


@pytest.mark.full
def test_an_encrypted_group_writes_nothing_that_can_be_read(tmp_path, monkeypatch):
    identity = str(pyrage.x25519.Identity.generate())
    monkeypatch.setenv("MTLJAX_KEY", identity)
    secret = Programs(set_up(dataclasses.replace(EXPERIMENT, encrypt=True), devices=1))
    with pytest.raises(KeyboardInterrupt):
        run(secret, tmp_path, die_at=25)
    files = [
        path for path in (tmp_path / "0" / joint_checkpoints.FOLDER).rglob("*") if path.is_file()
    ]
    assert sorted(path.name for path in files) == ["20.age", joint_checkpoints.SEEDS]
    run(secret, tmp_path)
    run(secret, tmp_path / "undisturbed")
    for seed in map(str, SEEDS):
        keys = parse_keys(identity, "KEY")
        assert outcome(tmp_path / seed, keys) == outcome(tmp_path / "undisturbed" / seed, keys)
