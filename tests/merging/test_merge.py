"""Merged runs: folders, statistics, the choice on validation, and what is refused."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pyrage
import pytest
from support import small_run
from support.comparison import SMALL

import mtljax
from mtljax.comparison.plan import single_task
from mtljax.evaluation.evaluator import Evaluator
from mtljax.main import main
from mtljax.merging import MERGES
from mtljax.runs.folder import read_result
from mtljax.training import merged_run
from mtljax.training.loop import train, train_group
from mtljax.training.merged_run import initial_parameters, merge
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up

QUICK = {
    "fisher": "fisher:examples=8",
    "regmean": "regmean:examples=32",
    "adamerging": "adamerging:steps=3,others=imitate",
}
"""Arguments that make a method fast; others have none."""


def train_single(folder, experiment, task, source=None, **changes):
    """Trains the single-task run of a task in a folder, without a report."""
    experiment = dataclasses.replace(single_task(experiment, task), **changes)
    programs = Programs(set_up(experiment, devices=1, source=source))
    experiment = dataclasses.replace(programs.setup.experiment, seed=experiment.seed)
    train_group([experiment], [folder], programs, quiet=True, report=False)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Single-task runs of the digits experiment from one start."""
    folder = tmp_path_factory.mktemp("runs")
    return [train_single(folder / task, SMALL, task) for task in ("digit", "value")]


BATCH_NORM = dataclasses.replace(small_run.EXPERIMENT, trunk="mlp:widths=(6,),norm=batch", steps=8)


@pytest.fixture(scope="module")
def normalized(tmp_path_factory):
    """Single-task runs with batch normalization on arrays in memory."""
    folder, source = tmp_path_factory.mktemp("normalized"), small_run.source()
    return [train_single(folder / task, BATCH_NORM, task, source) for task in ("a", "b")]


def merged(folders, workdir, method, **options):
    return merge(folders, workdir, method=method, devices=1, quiet=True, **options)


def test_every_start_is_that_of_the_runs_first_checkpoint(tmp_path):
    source = small_run.source()
    experiment = set_up(single_task(BATCH_NORM, "a"), devices=1, source=source).experiment
    state = Programs(set_up(experiment, devices=1, source=source)).create(experiment.seed)
    start = initial_parameters(experiment, source)
    other = initial_parameters(
        set_up(single_task(BATCH_NORM, "b"), devices=1, source=source).experiment, source
    )
    assert start.keys() == other.keys()
    assert not any(path.startswith("task_") for path in start)
    kernel = state.params["fusion"]["trunk_0"]["Dense_0"]["kernel"]
    np.testing.assert_array_equal(start["fusion/trunk_0/Dense_0/kernel"], kernel)
    for path, x in start.items():
        np.testing.assert_array_equal(x, other[path])


def test_fine_tuned_runs_start_from_the_weights_of_init(normalized, tmp_path):
    source = small_run.source()
    folders = [
        train_single(tmp_path / task, BATCH_NORM, task, source, steps=2, init=str(normalized[0]))
        for task in ("a", "b")
    ]
    starts = [initial_parameters(mtljax.load_run(f).experiment, source) for f in folders]
    kernel = "fusion/trunk_0/Dense_0/kernel"
    pretrained = mtljax.load_run(normalized[0]).state.params["fusion"]["trunk_0"]["Dense_0"]
    for start in starts:
        np.testing.assert_array_equal(start[kernel], pretrained["kernel"])
    merged(folders, tmp_path / "merged", "ties", source=source)
    with pytest.raises(ValueError, match="initial weights differ .init"):
        merged([normalized[0], folders[1]], tmp_path / "other", "ties", source=source)


def test_runs_whose_initial_weights_are_gone_are_refused_in_one_line(normalized, tmp_path):
    source, init = small_run.source(), tmp_path / "init"
    shutil.copytree(normalized[0], init)
    folders = [
        train_single(tmp_path / task, BATCH_NORM, task, source, steps=1, init=str(init))
        for task in ("a", "b")
    ]
    shutil.rmtree(init)
    with pytest.raises(ValueError, match="init") as error:
        merged(folders, tmp_path / "merged", "average", source=source)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "merged").exists()


def test_a_run_without_a_checkpoint_is_refused(normalized, tmp_path):
    copies = [shutil.copytree(run, tmp_path / run.name) for run in normalized]
    shutil.rmtree(copies[1] / "checkpoints")
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        merged(copies, tmp_path / "merged", "average", source=small_run.source())


@pytest.mark.parametrize("name", MERGES)
def test_a_merged_run_is_evaluated_predicts_and_loads_like_any_other(name, runs, tmp_path):
    folder = tmp_path / name
    result = merged(runs, folder, QUICK.get(name, name))
    assert result.merged["method"] == QUICK.get(name, name)
    trained = mtljax.load_run(folder)
    assert [task.name for task in trained.experiment.tasks] == ["digit", "value"]
    test = mtljax.evaluate(folder)
    assert test["digit"]["accuracy"] == pytest.approx(result.test["digit"]["accuracy"])
    assert test["value"]["mae"] == pytest.approx(result.test["value"]["mae"], rel=1e-5)
    images = np.zeros((3, *trained.shape), trained.dtype)
    assert mtljax.predict(folder, images)["digit"].shape == (3,)
    for task, run in zip(("digit", "value"), runs, strict=True):  # the heads are those of the runs
        ours, theirs = (mtljax.load_run(f).state.params[f"task_{task}"] for f in (folder, run))
        for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_run_that_left_its_trunk_unchanged_changes_nothing(runs, tmp_path):
    frozen = train_single(tmp_path / "value", SMALL, "value", freeze=("trunk",))
    result = merged([runs[0], frozen], tmp_path / "merged", "task_arithmetic:scale=1")
    for split in ("validation", "test"):
        ours, alone = (getattr(r, split)["digit"] for r in (result, read_result(runs[0])))
        assert ours["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert ours["accuracy"] == alone["accuracy"]
    start = merged([runs[0], frozen], tmp_path / "start", "task_arithmetic:scale=0")
    alone = read_result(frozen)
    assert start.test["value"]["mae"] == pytest.approx(alone.test["value"]["mae"], rel=1e-5)


def test_a_merged_run_is_exported(runs, tmp_path):
    merged(runs, tmp_path / "merged", "average")
    mtljax.export(tmp_path / "merged", "safetensors", tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").is_file()


def test_the_scale_is_the_best_on_validation_and_the_test_split_is_evaluated_once(
    runs, tmp_path, monkeypatch
):
    sizes, plain = [], Evaluator.metrics
    predicted = Evaluator.metrics_and_predictions

    def count(method):
        def counted(self, *arguments):
            sizes.append(self._size)
            return method(self, *arguments)

        return counted

    monkeypatch.setattr(Evaluator, "metrics", count(plain))
    monkeypatch.setattr(Evaluator, "metrics_and_predictions", count(predicted))
    chosen = merged(runs, tmp_path / "chosen", "task_arithmetic")
    splits = set_up(SMALL, devices=1).source.splits()
    assert len(splits["test"]) != len(splits["validation"])
    assert sizes.count(len(splits["test"])) == 1
    score = lambda result: np.mean([np.log(m["loss"]) for m in result.validation.values()])
    for scale in (0.3, 0.6, 1.0):
        fixed = merged(runs, tmp_path / str(scale), f"task_arithmetic:scale={scale}")
        assert fixed.merged["scale"] == scale
        assert score(chosen) <= score(fixed) + 1e-6


def test_batch_statistics_are_the_mean_over_batches_of_training_images(normalized, tmp_path):
    source, folder = small_run.source(), tmp_path / "merged"
    merged(normalized, folder, "average", source=source)
    state = mtljax.load_run(folder).state
    dense = state.params["fusion"]["trunk_0"]["Dense_0"]
    mean, std = (np.asarray(state.model_state["constants"][k], np.float64) for k in ("mean", "std"))
    size = BATCH_NORM.data.batch_size
    order = np.random.default_rng([0, 0]).permutation(len(source.train)).astype(np.int32)
    images = np.asarray(source.train.image, np.float64)[order]
    assert len(images) % size == 0
    x = ((images - mean) / std).reshape(len(images), -1)
    before = x @ np.asarray(dense["kernel"], np.float64) + np.asarray(dense["bias"], np.float64)
    batches = before.reshape(-1, size, before.shape[1])
    found = state.model_state["batch_stats"]["fusion"]["trunk_0"]["Norm_0"]["BatchNorm_0"]
    np.testing.assert_allclose(found["mean"], batches.mean((0, 1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["var"], batches.var(1).mean(0), rtol=1e-4)


@pytest.mark.parametrize("name", ["ties", "dare", "fisher", "regmean", "adamerging"])
def test_networks_with_batch_normalization_are_merged(name, normalized, tmp_path):
    result = merged(normalized, tmp_path / name, QUICK.get(name, name), source=small_run.source())
    assert np.isfinite(result.test["a"]["loss"])


def test_a_finished_merge_is_not_repeated_and_another_is_refused(runs, tmp_path):
    folder = tmp_path / "merged"
    first = merged(runs, folder, "average")
    stamp = (folder / "result.json").stat().st_mtime_ns
    assert merged(runs, folder, "average").merged == first.merged
    assert (folder / "result.json").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="by merging .* by average; choose another --workdir"):
        merged(runs, folder, "ties")
    with pytest.raises(ValueError, match="choose another --workdir"):
        merged(runs, runs[0], "average")


def test_encrypted_runs_make_an_encrypted_merged_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MTLJAX_KEY", str(pyrage.x25519.Identity.generate()))
    source = small_run.source()
    folders = [
        train_single(
            tmp_path / task, small_run.EXPERIMENT, task, source, encrypt=task == "a", steps=4
        )
        for task in ("a", "b")
    ]
    merged(folders, tmp_path / "merged", "average", source=source)
    assert mtljax.load_run(tmp_path / "merged").experiment.encrypt
    monkeypatch.delenv("MTLJAX_KEY")
    with pytest.raises(ValueError, match="MTLJAX"):
        mtljax.load_run(tmp_path / "merged")


def test_a_merged_run_cannot_be_continued(runs, tmp_path):
    folder = tmp_path / "merged"
    merged(runs, folder, "average")
    experiment = dataclasses.replace(mtljax.load_run(folder).experiment, steps=60)
    with pytest.raises(ValueError, match="--init"):
        train(experiment, folder, devices=1, quiet=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "initial weights differ .seed 0 and 1."),
        ({"trunk": "mlp:widths=(6,),norm=none"}, "networks differ"),
        ({"fusion": "cross_stitch"}, "networks differ"),
    ],
)
def test_runs_that_do_not_fit_are_refused_in_one_line(changes, message, runs, tmp_path):
    other = train_single(tmp_path / "other", SMALL, "value", **{"steps": 1, **changes})
    with pytest.raises(ValueError, match=message) as error:
        merged([runs[0], other], tmp_path / "merged", "average")
    assert str(runs[0]) in str(error.value)
    assert str(other) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "merged").exists()


def test_runs_on_other_images_are_refused(normalized, tmp_path):
    copies = [shutil.copytree(run, tmp_path / run.name) for run in normalized]
    spec = json.loads((copies[1] / "input.json").read_text())
    (copies[1] / "input.json").write_text(json.dumps({**spec, "shape": [5, 5, 1]}))
    with pytest.raises(ValueError, match="images differ .shape"):
        merged(copies, tmp_path / "merged", "average", source=small_run.source())


def test_runs_with_other_normalization_are_refused(normalized, tmp_path, monkeypatch):
    loaded = [mtljax.load_run(run) for run in normalized]
    state = loaded[1].state
    constants = {name: x + 1 for name, x in state.model_state["constants"].items()}
    changed = state.replace(model_state={**state.model_state, "constants": constants})
    monkeypatch.setattr(
        "mtljax.training.merged_run.load_run",
        lambda path, verify: (
            loaded[0] if path == normalized[0] else loaded[1]._replace(state=changed)
        ),
    )
    with pytest.raises(ValueError, match="normalize images by different means"):
        merged(normalized, tmp_path / "merged", "average", source=small_run.source())


def test_runs_whose_start_cannot_be_the_same_are_refused(normalized, tmp_path, monkeypatch):
    plain = merged_run.initial_parameters

    def moved(experiment, source):
        start = plain(experiment, source)
        shift = float(experiment.tasks[0].name == "b")
        return {path: x + shift for path, x in start.items()}

    monkeypatch.setattr(merged_run, "initial_parameters", moved)
    with pytest.raises(ValueError, match="started from different weights") as error:
        merged(normalized, tmp_path / "merged", "average", source=small_run.source())
    assert all(str(run) in str(error.value) for run in normalized)


@pytest.mark.parametrize(
    ("count", "message"), [(1, "at least two runs, not 1"), (0, "at least two runs, not 0")]
)
def test_fewer_than_two_runs_are_refused(count, message, runs, tmp_path):
    with pytest.raises(ValueError, match=message):
        merged(runs[:count], tmp_path / "merged", "average")


def test_a_run_that_is_listed_twice_is_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="listed twice"):
        merged([runs[0], runs[0]], tmp_path / "merged", "average")


def test_runs_of_the_same_task_and_of_several_tasks_are_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="have the same task 'digit'"):
        merged(
            [runs[0], shutil.copytree(runs[0], tmp_path / "copy")], tmp_path / "merged", "average"
        )
    merged(runs, tmp_path / "both", "average")
    with pytest.raises(ValueError, match="has 2 tasks .digit, value."):
        merged([tmp_path / "both", runs[0]], tmp_path / "merged", "average")


def test_a_fusion_that_depends_on_the_number_of_tasks_is_refused(tmp_path):
    folders = [
        train_single(tmp_path / task, SMALL, task, fusion="cross_stitch", steps=1)
        for task in ("digit", "value")
    ]
    with pytest.raises(ValueError, match="not the same in both networks") as error:
        merged(folders, tmp_path / "merged", "average")
    assert "\n" not in str(error.value)


def test_merging_on_the_command_line(runs, tmp_path, capsys):
    folder = str(tmp_path / "merged")
    assert main(["merge", "--runs", *map(str, runs), "--workdir", folder, "--devices", "1"]) == 0
    out = capsys.readouterr().out
    assert "scale 0.1: validation score" in out
    assert "merged by task_arithmetic" in out
    assert "task_arithmetic" in (tmp_path / "merged" / "report.html").read_text()
    assert main(["evaluate", "--run", folder]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--runs", "nowhere", "elsewhere"), "no run folder nowhere"),
        (("--runs", "tests", "docs"), "tests is not a run folder"),
        ((), "missing --runs"),
        (("--runs", "a", "b", "--method", "tise"), "did you mean 'ties'"),
    ],
)
def test_invalid_command_lines_end_in_one_line(arguments, message, capsys):
    assert main(["merge", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
