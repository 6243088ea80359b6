"""Searches: choice on validation, test metrics, files; runs have written results, no training."""

import csv
import dataclasses
import math
import sys

import numpy as np
import pytest
from support.comparison import EXPERIMENT as SYNTHETIC
from support.comparison import write_result
from support.small_search import BASE, SPACE

pytest.importorskip("optuna")

from mtljax import find_experiment  # noqa: E402
from mtljax.main import main  # noqa: E402
from mtljax.runs.selection import selection_score  # noqa: E402
from mtljax.searching import search as module  # noqa: E402
from mtljax.searching.search import search  # noqa: E402
from mtljax.tuning.trials import Trainer  # noqa: E402

LOSSES = {0: 0.5, 1: 0.4, 2: 0.3}
SEARCH = {"space": SPACE, "trials": 6, "seeds": 3, "finalists": 2, "quiet": True}


@pytest.fixture(scope="module")
def planted():
    """Trials whose score is the distance of the learning rate from 0.01, and written results.

    `losses` has validation losses for the rank of a setting among the trials (0: the default).
    """
    losses = dict(LOSSES)

    def train(self, study, trial, workdir, experiment, overrides):
        return abs(float(dict(overrides)["learning_rate"]) - 0.01)

    def run_members(methods, seeds, workdir, **_):
        candidates = [candidate for method in methods for candidate in method.candidates]
        for i, candidate in enumerate(candidates):
            for seed in seeds:
                folder = candidate.folder(workdir, seed)
                if losses[i] is not None and not folder.exists():
                    noise = 0.001 * seed
                    write_result(
                        folder,
                        0.9 + 0.01 * i + noise,
                        2.0,
                        3.0,
                        seed=seed,
                        validation=losses[i] + noise,
                    )
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train", train)
        patch.setattr(module, "run_members", run_members)
        yield losses


@pytest.fixture(scope="module")
def found(planted, tmp_path_factory):
    """(folder, outcome) of a search."""
    folder = tmp_path_factory.mktemp("search")
    planted.update(LOSSES)
    outcome, failures = search(SYNTHETIC, folder, **SEARCH)
    assert failures == []
    return folder, outcome


def test_best_mean_on_validation_wins_and_its_test_metrics_are_read(found):
    _, outcome = found
    best = outcome.finalists[1]  # second among the trials, first with all seeds
    assert outcome.best is best
    assert outcome.is_improved
    np.testing.assert_allclose(best.score, np.log([0.3, 0.301, 0.302]).mean(), rtol=1e-12)
    np.testing.assert_allclose(best.test[:, 0], [0.92, 0.921, 0.922])
    np.testing.assert_allclose(outcome.default.test[:, 0], [0.9, 0.901, 0.902])
    assert np.isnan(outcome.finalists[0].test).all()  # not the test metrics of other settings
    difference, p = outcome.difference(0)
    assert difference.mean == pytest.approx(0.02)
    assert p < 0.05


def test_experiment_of_the_best_setting_can_be_run_by_its_file(found):
    folder, outcome = found
    rate = float(outcome.best.name.partition("=")[2])
    best = find_experiment(str(folder / "best.json"))
    assert best == dataclasses.replace(SYNTHETIC, learning_rate=rate)


def test_default_wins_if_no_setting_is_better(planted, tmp_path):
    planted[0] = 0.2
    outcome, _ = search(SYNTHETIC, tmp_path, **SEARCH)
    assert outcome.best is outcome.default
    assert (
        "No setting has a better mean score on validation" in (tmp_path / "report.html").read_text()
    )
    assert find_experiment(str(tmp_path / "best.json")) == SYNTHETIC


def test_setting_with_a_failed_seed_cannot_win(planted, tmp_path):
    planted.update(LOSSES | {2: None})
    outcome, _ = search(SYNTHETIC, tmp_path, **SEARCH)
    assert math.isinf(outcome.finalists[1].score)
    assert outcome.best is outcome.finalists[0]


def test_page_and_table_have_all_trials(found):
    folder, outcome = found
    page = (folder / "report.html").read_text()
    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in rows] == list(range(1, 7))
    for trial, row in zip(outcome.trials, rows, strict=True):
        assert trial.settings in page
        assert float(row["score"]) == trial.score
        assert float(row["learning_rate"]) == trial.parameters["learning_rate"]
    assert f"{outcome.best.name} has the best mean score on validation" in page
    assert "6 trials: 6 complete; their seed 1000 is not among those of the results" in page
    assert {path.stem for path in (folder / "plots").glob("*.png")} == {
        *("history", "settings", "parameter_0")
    }


def test_search_with_more_trials_keeps_the_finished_ones(planted, found):
    folder, first = found
    planted.update(dict.fromkeys(range(4), 0.5))
    second, _ = search(SYNTHETIC, folder, **{**SEARCH, "trials": 8})
    assert second.trials[:6] == first.trials
    assert len(second.trials) == 8


def test_score_is_that_of_checkpoint_selection():
    metrics = {
        "digit": {"loss": 1.0, "accuracy": 0.8},
        "value": {"loss": math.e, "mae": 2.0, "rmse": 3.0},
    }
    assert selection_score(SYNTHETIC, metrics) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "missing --space FIELD=DISTRIBUTION"),
        (("--space", "learning_rate=uniform(0,x)"), "uniform needs two numbers"),
        (("--space", *SPACE, "--trials", "0"), "--trials must be >= 1, not 0"),
        (("--space", *SPACE, "--seeds", "0"), "--seeds must be >= 1, not 0"),
        (("--space", *SPACE, "--pruning", "median"), "--pruning cannot be 'median'"),
        (("--space", *SPACE, "--trial", "4"), "did you mean '--trials'?"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(flags, message, tmp_path, capsys):
    workdir = tmp_path / "search"
    assert main(["search", "--experiment", "digits", "--workdir", str(workdir), *flags]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not workdir.exists()


def test_folders_of_other_kinds_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and not a search folder"):
        search(BASE, tmp_path, **SEARCH)
    (tmp_path / "members").mkdir()
    (tmp_path / "results.csv").write_text("")
    with pytest.raises(ValueError, match="is a comparison folder, not a search"):
        search(BASE, tmp_path, **SEARCH)


def test_missing_optuna_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"search needs optuna: pip install 'mtljax\[search\]'"):
        search(BASE, tmp_path / "new", **SEARCH)
    assert not (tmp_path / "new").exists()
