"""Merged members of a comparison: planned, merged from the baselines of their seed, compared."""

import dataclasses
import json

import pytest
from support.comparison import SMALL

from mtljax.comparison import member_training
from mtljax.comparison.compare import compare
from mtljax.comparison.plan import plan
from mtljax.main import main
from mtljax.runs.load import load_run

MERGES = ("average", "ties:scale=1")
ASKED = {"merges": MERGES, "seeds": 2, "devices": 1, "quiet": True}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """(outcome, failures, folder) of a comparison of joint training with merging."""
    folder = tmp_path_factory.mktemp("comparison") / "compared"
    return *compare(SMALL, folder, **ASKED), folder


def test_joint_training_and_merging_are_rows_of_one_table(compared):
    outcome, failures, folder = compared
    assert not failures
    assert [row.name for row in outcome.rows] == [
        "STL",
        "ew",
        "merge average",
        "merge ties:scale=1",
    ]
    assert all(row.has_results for row in outcome.rows)
    table = (folder / "results.md").read_text()
    assert "| merge average |" in table
    assert "merge ties:scale=1" in (folder / "report.html").read_text()
    assert outcome.test("merge average", "STL") is not None


def test_a_merged_member_is_made_of_the_baselines_of_its_seed(compared):
    folder = compared[2]
    for method in plan(SMALL, merges=MERGES):
        for seed in (0, 1):
            path = method.candidates[0].folder(folder, seed)
            result = json.loads((path / "result.json").read_text())
            if not method.candidates[0].merge:
                assert "merged" not in result
                continue
            parts = method.candidates[0].parts
            assert result["merged"]["runs"] == [str(p.folder(folder, seed)) for p in parts]
            assert [t.name for t in load_run(path).experiment.tasks] == ["digit", "value"]
            assert load_run(path).experiment.seed == seed


def test_finished_merged_members_are_not_repeated(compared, monkeypatch):
    monkeypatch.setattr(member_training, "merge_runs", None)
    monkeypatch.setattr(member_training, "train_group", None)
    outcome, failures = compare(SMALL, compared[2], **ASKED)
    assert not failures
    assert [row.values.tolist() for row in outcome.rows] == [
        row.values.tolist() for row in compared[0].rows
    ]


def test_each_setting_of_a_grid_merges_the_baselines_with_this_setting():
    methods = plan(SMALL, grid=["learning_rate=0.1,0.2"], merges=["average"])
    singles = [method for method in methods if method.kind == "stl"]
    (merged,) = [method for method in methods if method.name == "merge average"]
    assert len(merged.candidates) == 2
    for i, candidate in enumerate(merged.candidates):
        assert candidate.parts == tuple(single.candidates[i] for single in singles)
        assert candidate.settings == singles[0].candidates[i].settings


def test_variants_have_merged_members_of_their_own_baselines():
    methods = plan(SMALL, trunks=["mlp:widths=(4,)", "mlp:widths=(8,)"], merges=["ties"])
    merged = [method for method in methods if method.candidates[0].merge]
    assert [m.name for m in merged] == [
        f"merge ties, trunk mlp:widths=({width},)" for width in (4, 8)
    ]
    for method in merged:
        trunk = method.candidates[0].experiment.trunk
        assert {part.experiment.trunk for part in method.candidates[0].parts} == {trunk}


def test_merged_members_of_a_conditioned_experiment_are_not_conditioned():
    conditioned = dataclasses.replace(SMALL, condition="palora")
    *_, joint, merged = plan(conditioned, merges=["average"])
    assert joint.candidates[0].experiment.condition == "palora"
    assert merged.candidates[0].experiment.condition == "none"


def test_a_merged_member_has_its_own_folder(tmp_path):
    methods = plan(SMALL, merges=["average", "ties", "ties:density=0.3"])
    folders = [method.candidates[0].folder(tmp_path, 0) for method in methods]
    assert len(set(folders)) == len(folders)


def test_a_member_whose_baseline_failed_is_named(tmp_path, monkeypatch):
    folder = tmp_path / "compared"
    monkeypatch.setattr(member_training, "_train", lambda part, programs, progress: [])
    outcome, failures = compare(SMALL, folder, **{**ASKED, "seeds": 1, "merges": ["average"]})
    assert [failure.member for failure in failures] == ["merge average, seed 0"]
    assert "is not finished" in failures[0].reason
    assert not outcome.rows[-1].has_results


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        (["tise"], "did you mean 'ties'"),
        (["adamerging"], "which value does not predict"),
        (["ties", "ties"], "listed twice"),
    ],
)
def test_invalid_merges_are_refused_before_training(merges, message):
    with pytest.raises(ValueError, match=message):
        plan(SMALL, merges=merges)


def test_merging_needs_two_tasks():
    single = dataclasses.replace(SMALL, tasks=SMALL.tasks[:1])
    with pytest.raises(ValueError, match="at least two tasks"):
        plan(single, merges=["average"])


def test_merges_on_the_command_line(tmp_path, capsys):
    arguments = ["--experiment", "digits", "--merges", "tise", "--workdir", str(tmp_path)]
    assert main(["compare", *arguments]) == 2
    assert "did you mean 'ties'" in capsys.readouterr().err


@pytest.mark.full
def test_each_fold_of_a_cross_validation_merges_its_own_baselines(tmp_path):
    asked = {"merges": ["average"], "folds": 2, "devices": 1, "quiet": True}
    outcome, failures = compare(SMALL, tmp_path / "compared", **asked)
    assert not failures
    assert outcome.rows[-1].name == "merge average"
    assert outcome.rows[-1].values.shape[0] == 2
    assert outcome.rows[-1].has_results
