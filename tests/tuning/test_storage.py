"""Storages that fail during a search: one line with a remedy, and the search resumes."""

import contextlib
import errno
import os
import sqlite3

import pytest
from support.cli import SMALL
from support.small_search import BASE, SPACE, open_study

pytest.importorskip("optuna")

import sqlalchemy  # noqa: E402

from mtljax.main import main  # noqa: E402
from mtljax.tuning import storage as module  # noqa: E402
from mtljax.tuning.storage import StorageError, storage_errors  # noqa: E402
from mtljax.tuning.trials import Trainer  # noqa: E402


class Formula(Trainer):
    """Trainer with a formula for the score, to whose third trial something happens."""

    def _train(self, study, trial, workdir, experiment, overrides):
        if trial.number == 2:
            happen(study, trial)
        study.report(trial, 1, 0.5)
        return float(dict(overrides)["learning_rate"])


def happen(study, trial):
    """Nothing happens."""


def train(study):
    records = Formula(quiet=True).run(study, BASE, 5)
    return [(record.settings, record.state, record.score) for record in records]


@pytest.fixture
def undisturbed(tmp_path):
    return train(open_study(tmp_path / "undisturbed"))


@contextlib.contextmanager
def locked(study):
    other = sqlite3.connect(study.folder / "study.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    yield
    other.close()


@contextlib.contextmanager
def pragma(study, text):
    def execute(connection, _):
        connection.execute(f"PRAGMA {text}")

    sqlalchemy.event.listen(study._storage.engine, "connect", execute)
    study._storage.engine.dispose()  # closes the connections
    yield


@contextlib.contextmanager
def moved(study):
    file = study.folder / "study.db"
    file.rename(study.folder / "elsewhere.db")
    yield
    (study.folder / "elsewhere.db").rename(file)


FAULTS = {
    "locked": (locked, StorageError, "database is locked; end the program that has locked it"),
    "read-only": (
        lambda study: pragma(study, "query_only=1"),
        StorageError,
        "attempt to write a readonly database; make it accessible, then run the same command",
    ),
    "full": (lambda study: pragma(study, "max_page_count=1"), OSError, "No space left on device"),
    "moved": (moved, StorageError, "the file was deleted or moved; restore it, or run the same"),
}


def happening(fault, stack):
    """Function that causes a fault, which lasts until the end of the stack."""

    def happen(study, trial):
        stack.enter_context(FAULTS[fault][0](study))
        for i in range(1000 if fault == "full" else 0):  # until the last page is full
            study.report(trial, 2 + i, 0.5)

    return happen


@pytest.mark.parametrize("fault", FAULTS)
def test_search_stops_in_one_line_and_resumes_without_loss(
    fault, undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "SECONDS", 0.01)
    _, error, message = FAULTS[fault]
    with contextlib.ExitStack() as stack:
        monkeypatch.setitem(globals(), "happen", happening(fault, stack))
        with pytest.raises(error, match=message) as raised:
            train(open_study(tmp_path / "search"))
        assert "\n" not in str(raised.value)
        assert str(tmp_path / "search" / "study.db") in str(raised.value)
    monkeypatch.setitem(globals(), "happen", lambda study, trial: None)
    assert train(open_study(tmp_path / "search")) == undisturbed


def run_on_a_full_disk(study, trial):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.jsonl")


def test_trial_is_not_failed_by_a_full_disk(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "happen", run_on_a_full_disk)
    with pytest.raises(OSError, match=r"No space left on device: 'metrics\.jsonl'"):
        train(open_study(tmp_path / "search"))
    monkeypatch.setitem(globals(), "happen", lambda study, trial: None)
    assert train(open_study(tmp_path / "search")) == undisturbed


def test_password_of_a_database_is_not_shown():
    url = "postgresql://me:secret@host/studies"
    expected = pytest.raises(StorageError, match=r"postgresql://me:\*\*\*@host/studies")
    with expected, storage_errors(url):
        raise RuntimeError("connection refused")


@pytest.mark.parametrize(("fault", "status"), [("locked", 2), ("full", 1), ("full run", 1)])
def test_status_of_the_command_line(fault, status, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "SECONDS", 0.01)
    monkeypatch.setattr(Trainer, "_train", Formula._train)
    with contextlib.ExitStack() as stack:
        happen = run_on_a_full_disk if fault == "full run" else happening(fault, stack)
        monkeypatch.setitem(globals(), "happen", happen)
        flags = ["--workdir", str(tmp_path), "--space", *SPACE, "--trials", "5", "--quiet"]
        assert main(["search", *SMALL, *flags]) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mtljax: ")
    assert FAULTS[fault.removesuffix(" run")][2] in line
    assert "run the same command to resume" in line
