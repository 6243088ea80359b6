"""Encrypted runs by the command line: the model is never on the disk, only the key opens it."""

import json
import os
import re
import shutil
import signal
import sys
import time

import numpy as np
import pyrage
import pytest
from support.cli import ROOT, SMALL, TRAINED, finish, launch, wait_until

from mtljax.main import main
from mtljax.runs.checkpoints import Checkpoints
from mtljax.runs.encryption import parse_keys
from mtljax.training.run import Run

PROGRAM = (sys.executable, "-m", "mtljax.main")
NOT_ENCRYPTED = re.compile(
    r"\.lock|(config|input|result)\.json|metrics\.jsonl|telemetry\.jsonl|report\.html|plots/.*"
)
"""What a run writes beside the model, see docs/protection.md; `.part` while it is written."""


@pytest.fixture(scope="module")
def identity():
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def key(identity, monkeypatch):
    """The environment has the key."""
    monkeypatch.setenv("MTLJAX_KEY", str(identity))
    return parse_keys(str(identity), "KEY")


def launch_with(key, *command):
    """Starts a process that has the key."""
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "MTLJAX_KEY": str(key)}
    return launch(command, env={**os.environ, **environment})


def contents(folder, keys=None):
    checkpoints = Checkpoints(folder, read_only=True, keys=keys)
    steps = {checkpoints.latest(), checkpoints.best()}
    found = {step: checkpoints.read(step) for step in steps}
    checkpoints.close()
    return {
        (step, name): (leaf.dtype, leaf.tobytes())
        for step, state in found.items()
        for name, leaf in state.items()
    }


def results(folder):
    result = json.loads((folder / "result.json").read_text())
    return {name: result[name] for name in ("best_step", "validation", "test")}


def test_an_encrypted_run_is_the_same_run(trained_run, key, encrypted_run, tmp_path, capsys):
    folder = encrypted_run
    assert results(folder) == results(trained_run)
    assert contents(folder, key) == contents(trained_run)
    for run, name in ((folder, "encrypted"), (trained_run, "plain")):
        assert main(["evaluate", "--run", str(run), "--output", str(tmp_path / name)]) == 0
    assert (tmp_path / "encrypted").read_text() == (tmp_path / "plain").read_text()
    capsys.readouterr()


@pytest.mark.full
def test_stopped_and_gone_on_with_it_is_the_same_run(trained_run, key, tmp_path, monkeypatch):
    folder, record = tmp_path / "run", Run.record

    def die(self, chunk, *rest):
        record(self, chunk, *rest)
        if chunk.step == 4:
            raise ZeroDivisionError

    flags = [*TRAINED, "--encrypt", "--workdir", str(folder), "--quiet"]
    monkeypatch.setattr(Run, "record", die)
    with pytest.raises(ZeroDivisionError):
        main(flags)
    monkeypatch.undo()
    monkeypatch.setenv("MTLJAX_KEY", str(key.identities[0]))
    assert not (folder / "result.json").exists()
    assert main(flags) == 0
    assert results(folder) == results(trained_run)
    assert contents(folder, key) == contents(trained_run)


@pytest.fixture(scope="module")
def finished(identity, tmp_path_factory):
    """The folder of an encrypted run, to read only."""
    folder = tmp_path_factory.mktemp("encrypted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTLJAX_KEY", str(identity))
        assert main([*TRAINED, "--encrypt", "--workdir", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture
def encrypted_run(finished, key, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def refused(capsys, *arguments):
    """The line that a command ends in."""
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("mtljax: ")
    assert err.count("\n") == 1
    return err


def test_without_the_key_nothing_opens_it(encrypted_run, identity, monkeypatch, capsys, tmp_path):
    use = ["evaluate", "--run", encrypted_run]
    again = [*TRAINED, "--encrypt", "--workdir", encrypted_run, "--quiet"]
    (encrypted_run / "result.json").unlink()  # so that training goes on
    other = str(pyrage.x25519.Identity.generate())
    for environment, reason in (
        ({}, "no key to encrypt or decrypt with"),
        ({"MTLJAX_KEY": other}, "cannot be decrypted"),
        ({"MTLJAX_KEY": str(identity.to_public())}, "cannot be decrypted"),
        ({"MTLJAX_PASSPHRASE": "a guess"}, "cannot be decrypted"),
    ):
        monkeypatch.delenv("MTLJAX_KEY", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for arguments in (use, again):
            line = refused(capsys, *arguments)
            assert reason in line
            assert other not in line
    before = {path: path.read_bytes() for path in encrypted_run.rglob("*") if path.is_file()}
    assert "encrypt=True, not False" in refused(capsys, *TRAINED, "--workdir", encrypted_run)
    assert all(path.read_bytes() == data for path, data in before.items())


def test_without_a_key_nothing_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MTLJAX_KEY", raising=False)
    line = refused(capsys, *TRAINED, "--encrypt", "--workdir", tmp_path / "run", "--quiet")
    assert "set MTLJAX_KEY_FILE" in line
    assert not (tmp_path / "run").exists()


def test_the_key_is_written_nowhere(encrypted_run, identity):
    for path in encrypted_run.rglob("*"):
        if path.is_file():
            assert str(identity)[15:] not in path.read_bytes().decode("latin-1")


def test_the_parameters_are_in_no_file(encrypted_run, key):
    secret = [
        data[at : at + 8]
        for (_, name), (dtype, data) in contents(encrypted_run, key).items()
        if "kernel" in name
        for at in range(0, len(data), 8)
        if len(set(data[at : at + 8])) > 4  # zeros are everywhere
    ]
    assert len(secret) > 1000
    for path in encrypted_run.rglob("*"):
        if path.is_file():
            found = path.read_bytes()
            assert not any(piece in found for piece in secret[:2000]), path


@pytest.mark.full
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_every_file_that_is_opened_for_writing_is_known_or_encrypted(identity, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log"
    train = (*PROGRAM, *TRAINED, "--encrypt", "--workdir", folder, "--quiet")
    calls = "openat,open,creat,rename,renameat,renameat2,link,linkat,symlinkat,memfd_create"
    strace = ("strace", "-f", "-q", "-s", "4096", "-e", f"trace={calls}", "-o", log)
    # Python's bytecode and matplotlib's list of fonts, which a fresh machine lacks, are no concern.
    quiet = ("env", "PYTHONDONTWRITEBYTECODE=1", f"MPLCONFIGDIR={tmp_path / 'fonts'}")
    assert finish(launch_with(identity, *strace, *quiet, *train)) == (0, "", "")
    opened = re.findall(
        r'open(?:at)?\([^"]*"([^"]+)", [^)\n]*(?:O_WRONLY|O_RDWR)[^)\n]*\) = \d', log.read_text()
    )
    inside = [path.removeprefix(f"{folder}/") for path in opened if path.startswith(str(folder))]
    checkpoints = {path for path in inside if path.startswith("checkpoints/")}
    assert {"checkpoints/3.age.part", "checkpoints/6.age.part"} <= checkpoints
    assert all(re.fullmatch(r"checkpoints/\d+\.age\.part", path) for path in checkpoints)
    unnamed = {str(folder)}  # O_TMPFILE: filelock's empty lock before it gets its name
    others = {path.removesuffix(".part") for path in set(inside) - checkpoints - unnamed}
    assert not {path for path in others if not NOT_ENCRYPTED.fullmatch(path)}
    elsewhere = {path for path in opened if not path.startswith(str(folder))}
    known = ("/dev/", "/proc/", str(tmp_path / "fonts"), os.environ["MTLJAX_CACHE"])
    assert not {path for path in elsewhere if not path.startswith(known)}


@pytest.mark.slow
def test_killed_at_any_moment(identity, tmp_path):
    flags = (*SMALL, "--steps", "400", "--log-every", "10", "--eval-every", "20", "--quiet")
    keys, chance = parse_keys(str(identity), "KEY"), np.random.default_rng(0)
    train = (*PROGRAM, *flags, "--encrypt", "--workdir")
    undisturbed, folder, kills = tmp_path / "undisturbed", tmp_path / "run", 0
    assert finish(launch_with(identity, *train, undisturbed)) == (0, "", "")
    for _ in range(8):
        process = launch_with(identity, *train, folder)
        before = set(folder.glob("checkpoints/*"))
        wait_until(lambda: set(folder.glob("checkpoints/*")) != before, process)  # noqa: B023
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        kills += finish(process)[0] == -signal.SIGKILL
    assert kills >= 4
    assert finish(launch_with(identity, *train, folder)) == (0, "", "")
    assert results(folder) == results(undisturbed)
    assert contents(folder, keys) == contents(undisturbed, keys)
    assert {path.suffix for path in (folder / "checkpoints").iterdir()} == {".age"}
