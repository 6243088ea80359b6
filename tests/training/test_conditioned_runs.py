"""Runs of networks conditioned on the preference: they resume, and take a preference afterwards."""

import json

import numpy as np
import pytest
from PIL import Image
from support.cli import TRAINED
from support.small_run import assert_same_states, lines, make_programs, run, source, states
from support.tiers import full_except

import mtljax
from mtljax.evaluation.preferences import evaluate_at_preferences
from mtljax.main import main
from mtljax.models.conditioning import CONDITIONINGS
from mtljax.runs.load import load_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A conditioned run."""
    folder = tmp_path_factory.mktemp("run") / "palora"
    run(make_programs(condition="palora:rank=2", steps=8), [folder])
    return folder


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.arange(9, dtype=np.uint8).reshape(3, 3) * 20).save(path)
    return path


@pytest.mark.parametrize("condition", full_except(["palora"], CONDITIONINGS))
def test_a_run_resumes_bit_for_bit(condition, tmp_path):
    programs = make_programs(condition=condition, steps=16)
    once, twice = tmp_path / "once", tmp_path / "twice"
    run(programs, [once])
    with pytest.raises(KeyboardInterrupt):
        run(programs, [twice], die_at=8)
    run(programs, [twice])
    assert lines(once) == lines(twice)
    assert_same_states(states(once), states(twice))


@pytest.mark.full
def test_seeds_trained_side_by_side_draw_their_own_preferences(tmp_path):
    programs = make_programs(condition="cosmos", steps=8)
    together, alone = [tmp_path / "0", tmp_path / "1"], tmp_path / "alone"
    run(programs, together, seeds=(0, 1))
    run(programs, [alone], seeds=(1,))
    weights = lambda folder: [x["weight"]["a"] for x in lines(folder) if "weight" in x]
    assert weights(together[0]) != weights(together[1])
    np.testing.assert_allclose(weights(together[1]), weights(alone), rtol=1e-5)


def test_a_loaded_run_predicts_at_any_preference(folder):
    trained = load_run(folder)
    assert trained.preference == {"a": 0.5, "b": 0.5}
    images = source().test.image[:4]
    corner = trained.at_preference([2, 0])
    assert corner.preference == {"a": 1.0, "b": 0.0}
    equal, found = (mtljax.predict(t, images)["b"] for t in (trained, corner))
    assert (equal != found).any()
    assert np.array_equal(mtljax.predict(corner.at_preference([3, 3]), images)["b"], equal)


def test_a_run_is_evaluated_at_several_preferences(folder):
    trained, rays = load_run(folder), ((1, 0), (0.5, 0.5), (0, 1))
    found = evaluate_at_preferences(trained, rays, source=source())
    for ray, metrics in zip(rays, found, strict=True):
        assert metrics == mtljax.evaluate(trained.at_preference(ray), source=source())
    result = json.loads((folder / "result.json").read_text())
    assert found[1] == result["test"]
    assert result["preference"] == {"a": 0.5, "b": 0.5}
    assert found[0] != found[2]


def test_predict_and_export_at_a_preference(folder, picture, tmp_path, capsys):
    found = []
    for flags in ((), ("--preference", "0.5,0.5"), ("--preference", "0,1")):
        output = tmp_path / "predictions.json"
        assert (
            main(["predict", "--run", str(folder), str(picture), "--output", str(output), *flags])
            == 0
        )
        found.append(json.loads(output.read_text())[0]["b"]["prediction"])
    assert found[0] == found[1] != found[2]
    out = capsys.readouterr().out
    assert "preference: a 0.5, b 0.5 (--preference sets it)" in out
    assert "preference: a 0, b 1\n" in out
    exported = mtljax.export(
        load_run(folder).at_preference([0, 1]), "safetensors", tmp_path / "x.safetensors"
    )
    assert exported.description["preference"] == {"a": 0.0, "b": 1.0}


@pytest.mark.full
def test_train_and_evaluate_say_the_preference(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main([*TRAINED, "--condition", "cosmos", "--workdir", str(folder)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "conditioned on the preference over tasks (cosmos), which is equal in evaluations" in out
    assert "chosen on validation, at equal preference for all tasks" in out
    page = (folder / "report.html").read_text()
    assert "selected on validation, at equal preference for all tasks" in page
    assert main(["evaluate", "--run", str(folder), "--preference", "1,3"]) == 0
    found = json.loads((folder / "evaluation-test-1_3.json").read_text())
    assert found["preference"] == {"digit": 0.25, "value": 0.75}
    flags = ["--preference", "1,3", "--calibrate"]
    assert main(["evaluate", "--run", str(folder), *flags]) == 2
    assert "--calibrate is for the equal preference" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("preference", "message"),
    [
        (
            "1,2,3",
            "preference 1,2,3 has 3 values; give one for each of the tasks a, b, in",
        ),
        ("1", "preference 1 has 1 value; give one for each of the tasks a, b"),
        ("0,0", "preference 0,0 must have finite values >= 0, not all 0, for the tasks a, b"),
        ("-1,2", "preference -1,2 must have finite values >= 0"),
        ("nan,1", "preference nan,1 must have finite values >= 0"),
        ("a=1", "--preference a=1: numbers separated by commas, such as 0.3,0.7, are required"),
    ],
)
def test_a_wrong_preference_ends_in_one_line(folder, picture, capsys, preference, message):
    status = main(["predict", "--run", str(folder), str(picture), f"--preference={preference}"])
    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert error.count("\n") == 1


def test_other_runs_take_no_preference(trained_run, picture, capsys):
    status = main(["predict", "--run", str(trained_run), str(picture), "--preference", "1,1"])
    assert status == 2
    assert capsys.readouterr().err == (
        "mtljax: preference 1,1: the run is not conditioned on the preference; train it with "
        "--condition, see `list conditionings`\n"
    )


def test_training_of_a_condition_that_does_not_fit_ends_in_one_line(capsys, tmp_path):
    arguments = ["--experiment", "digits", "--workdir", str(tmp_path / "run"), "--condition"]
    for flags, message in (
        (["palora", "--balancer", "uw"], "needs a balancer that reads the preference"),
        (["palorra"], "unknown condition 'palorra'; did you mean 'palora'?"),
    ):
        assert main([*arguments, *flags]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
