"""A real search: killed, resumed and shared by two processes; it beats the default."""

import csv
import json
import math

import numpy as np
import pytest
from scipy import stats
from support.cli import finish, start, wait_until

pytest.importorskip("optuna")

from mtljax import find_experiment  # noqa: E402
from mtljax.runs.selection import selection_score  # noqa: E402

TRIALS, SEEDS = 12, 5
FLAGS = (
    *("search", "--experiment", "digits_few", "--steps", "400", "--eval-every", "50"),
    *("--space", "learning_rate=loguniform(3e-3,1e-1)", "layer_decay=uniform(0.2,1)"),
    *("--trials", str(TRIALS), "--seeds", str(SEEDS), "--quiet"),
)


@pytest.mark.slow
def test_search_beats_the_default_although_it_is_killed_and_shared(tmp_path, user_flags):
    cache, folder = tmp_path / "cache", tmp_path / "runs" / "search"
    run = lambda *arguments: start(*arguments, cache=cache, cwd=tmp_path)
    pretrain = ("--experiment", "multi_digits", "--workdir", "runs/multi_digits", "--quiet")
    assert finish(run(*pretrain)) == (0, "", "")

    command = (*FLAGS, "--workdir", str(folder))
    trials = lambda: sorted(folder.glob("trials/[0-9]*"))
    killed = run(*command)
    wait_until(lambda: len(trials()) >= 3 and (trials()[-1] / "metrics.jsonl").exists(), killed)
    killed.kill()
    finish(killed)
    processes = [run(*command), run(*command)]
    for process in processes:
        assert finish(process) == (0, "", "")

    with (folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in rows] == list(range(1, TRIALS + 1))
    assert {row["state"] for row in rows} <= {"complete", "pruned"}
    assert len(trials()) == TRIALS
    # No trial looked at the test split, and each took the steps that its evaluations need.
    assert not list(folder.glob("trials/*/result.json"))

    results = {}
    for path in folder.glob("members/*/seed-*/result.json"):
        experiment = find_experiment(str(path.with_name("config.json")))
        result = json.loads(path.read_text())
        key = experiment.learning_rate, experiment.layer_decay
        results.setdefault(key, []).append((experiment, result))
    assert {len(runs) for runs in results.values()} == {SEEDS}
    score = {
        key: np.mean([selection_score(e, r["validation"]) for e, r in runs])
        for key, runs in results.items()
    }
    default = find_experiment("digits_few")
    best = find_experiment(str(folder / "best.json"))
    key = best.learning_rate, best.layer_decay
    assert score[key] == min(score.values())
    assert score[key] < score[default.learning_rate, default.layer_decay]

    page = (folder / "report.html").read_text()
    assert f"learning_rate={best.learning_rate:.4g}" in page
    accuracy = [100 * r["test"]["digit"]["accuracy"] for _, r in results[key]]
    half = stats.t.ppf(0.975, SEEDS - 1) * np.std(accuracy, ddof=1) / math.sqrt(SEEDS)
    assert f"{np.mean(accuracy):.2f} ± {half:.2f} %" in page
    short = ("--steps", "50", "--quiet")
    assert finish(run("--experiment", str(folder / "best.json"), *short)) == (0, "", "")
