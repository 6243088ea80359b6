"""What a front of given results is said to be, and what the verb writes."""

import csv
import dataclasses

import numpy as np
import pytest
import scipy.stats
from support.comparison import EXPERIMENT, SMALL, write_result
from support.front_references import volume_by_inclusion

from mtljax.balancing.rays import rays
from mtljax.comparison.compare import compare
from mtljax.evaluation.preferences import evaluate_at_preferences
from mtljax.main import main
from mtljax.pareto.conclusions import conclusions
from mtljax.pareto.front import front, write
from mtljax.pareto.plan import LINEAR, plan, with_rays
from mtljax.pareto.results import collect

CONSTANT = {"digit": {"accuracy": 0.1}, "value": {"mae": 4.0}}
SINGLE = [(0.9, 2.0), (0.9, 2.0)]


def made(workdir, points, seeds=2):
    """The outcome of fronts of 3 rays: {front: points[seed][ray] = (accuracy, mae)}."""
    planned = plan(EXPERIMENT, [name for name in points if name != LINEAR], 3)
    save = lambda method, seed, accuracy, mae: write_result(
        method.candidates[0].folder(workdir, seed), accuracy, mae, mae, seed=seed, trivial=CONSTANT
    )
    for method in planned.baselines:
        for seed, row in enumerate(SINGLE[:seeds]):
            save(method, seed, *row)
    for part in planned.fronts:
        for seed in range(seeds):
            for method, row in zip(part.methods, points[part.name][seed], strict=True):
                if row is not None:
                    save(method, seed, *row)
    return collect(EXPERIMENT, planned, range(seeds), workdir)


POINTS = {
    "epo": [[(0.5, 1.0), (0.9, 2.0), (0.7, 2.5)], [(0.5, 1.2), (0.9, 2.0), (0.8, 2.2)]],
    LINEAR: [[(0.4, 2.0), (0.8, 3.0), (0.1, 4.0)], [(0.4, 2.0), (0.7, 3.0), (0.1, 4.0)]],
}


def test_the_unit_of_the_volume_is_the_box_of_the_single_task_networks(tmp_path):
    outcome = made(tmp_path, POINTS)
    for name, seeds in POINTS.items():
        found = next(f for f in outcome.fronts if f.name == name)
        for seed, rows in enumerate(seeds):
            gains = np.array([((a - 0.1) / 0.8, (4.0 - m) / 2.0) for a, m in rows])
            expected = volume_by_inclusion(-gains, np.zeros(2))
            assert outcome.volumes(found)[seed] == pytest.approx(expected, rel=1e-9)
    # The second ray equals the single-task networks: alone it dominates 1.
    assert outcome.volumes(outcome.methods[0])[0] == pytest.approx(1 + 0.5 * 0.5, rel=1e-9)
    assert outcome.optimal(outcome.methods[0]).tolist() == [True, True, False]


def test_the_test_is_paired_over_seeds(tmp_path):
    outcome = made(tmp_path, POINTS)
    first, linear = outcome.methods[0], outcome.linear
    a, b = outcome.volumes(first), outcome.volumes(linear)
    assert outcome.p_values()["epo"] == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue)
    low, high = scipy.stats.ttest_rel(a, b).confidence_interval()
    assert (outcome.difference(first).low, outcome.difference(first).high) == pytest.approx(
        (low, high)
    )


def test_conclusions_say_whether_a_front_is_larger(tmp_path):
    said = conclusions(made(tmp_path / "two", POINTS))
    assert "epo with 3 rays dominates a hypervolume of 1.2" in said[0]
    assert "larger than that of linear scalarization" in said[0]
    assert "front dominates: 2 of 3 (epo) and 2 of 3 (linear" in said[-2]
    assert "in all tasks: 1 of 3 (epo) (means" in said[-2]
    turned = {"epo": POINTS[LINEAR], LINEAR: POINTS["epo"]}
    assert "smaller than that of linear" in conclusions(made(tmp_path / "turned", turned))[0]
    same = {"epo": POINTS[LINEAR], LINEAR: POINTS[LINEAR]}
    assert "not significantly different" in conclusions(made(tmp_path / "same", same))[0]
    one = conclusions(made(tmp_path / "one", POINTS, seeds=1))
    assert "untested" in one[0]
    assert "one seed gives no variance estimate" in one[-1]


def test_a_missing_ray_makes_the_volume_of_its_seed_unknown(tmp_path):
    points = {**POINTS, "epo": [[*POINTS["epo"][0][:2], None], POINTS["epo"][1]]}
    outcome = made(tmp_path, points)
    assert np.isnan(outcome.volumes(outcome.methods[0])).tolist() == [True, False]
    write(outcome, [], tmp_path)
    assert (tmp_path / "report.html").exists()
    nothing = {"epo": [[None] * 3] * 2, LINEAR: [[None] * 3] * 2}
    said = conclusions(made(tmp_path / "nothing", nothing))
    assert "the hypervolume is unknown" in said[0]


def test_the_tables_hold_every_ray(tmp_path):
    outcome = made(tmp_path, POINTS)
    write(outcome, [], tmp_path)
    rows = list(csv.DictReader((tmp_path / "front.csv").read_text().splitlines()))
    assert [row["front"] for row in rows] == ["epo"] * 3 + [LINEAR] * 3
    assert float(rows[0]["digit/accuracy"]) == 0.5
    assert float(rows[0]["value/mae"]) == pytest.approx(1.1)
    weights = [[float(row[f"preference/{task}"]) for task in ("digit", "value")] for row in rows]
    np.testing.assert_allclose(weights[:3], rays(2, 3))
    volumes = list(csv.DictReader((tmp_path / "hypervolume.csv").read_text().splitlines()))
    mean = outcome.volume(outcome.methods[0]).mean
    assert float(volumes[0]["hypervolume"]) == pytest.approx(mean)
    assert volumes[1]["adjusted_p"] == ""
    # 3 rays of 1000 steps of 2 ms.
    assert float(volumes[0]["seconds"]) == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("methods", "count", "words"),
    [
        (["uw"], 3, "--method uw has no preference"),
        (["ew"], 3, "is trained in any case"),
        ([], 3, "--method names no balancer"),
        (["epo"], 1, "--rays must be >= 2"),
        (["epoo"], 3, "did you mean 'epo'"),
        (["epo@preferred:1,2"], 3, "has a preference, but the rays .*; write --method epo$"),
    ],
)
def test_unsuitable_fronts_are_refused(methods, count, words):
    with pytest.raises(ValueError, match=words):
        plan(EXPERIMENT, methods, count)


def test_coupled_rays_apart_are_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="--method hypervolume trains all rays in one program"):
        front(EXPERIMENT, tmp_path / "front", method=["epo", "hypervolume"], together="no")
    assert not (tmp_path / "front").exists()


def test_the_condition_of_a_front_is_asked_for_apart():
    conditioned = dataclasses.replace(EXPERIMENT, condition="palora:rank=2")
    with pytest.raises(ValueError, match="write --conditions palora:rank=2 to add the front"):
        plan(conditioned, ["epo"], 3)


def test_a_front_and_a_comparison_share_no_folder(tmp_path):
    for name, kind, train in (
        ("results.csv", "comparison", front),
        ("hypervolume.csv", "front", compare),
    ):
        workdir = tmp_path / kind
        (workdir / "members").mkdir(parents=True)
        (workdir / name).write_text("")
        with pytest.raises(ValueError, match=f"is a {kind} folder, not a"):
            train(EXPERIMENT, workdir)


def test_a_front_needs_several_tasks():
    single = dataclasses.replace(EXPERIMENT, tasks=EXPERIMENT.tasks[:1])
    with pytest.raises(ValueError, match="2 to 4 tasks, not 1"):
        plan(single, ["epo"], 3)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("pmtl", "pmtl:rays=3"),
        ("pmtl:rays=5", "pmtl:rays=5"),
        ("pmtl:warmup=10", "pmtl:rays=3,warmup=10"),
        ("hypervolume", "hypervolume:rays=3"),
        ("uw+pmtl", "uw+pmtl:rays=3"),
        ("epo:tolerance=1e-5", "epo:tolerance=1e-5"),
    ],
)
def test_methods_know_the_number_of_rays(method, expected):
    assert with_rays(method, 3) == expected


def test_fronts_that_share_a_preference_share_no_coupled_runs(tmp_path):
    folders = [
        {
            method.candidates[0].folder(tmp_path, 0)
            for method in plan(EXPERIMENT, ["hypervolume"], count).fronts[0].methods
        }
        for count in (2, 6)
    ]
    assert set(map(tuple, rays(2, 2))) <= set(map(tuple, rays(2, 6)))
    assert not folders[0] & folders[1]


def test_linear_scalarization_can_have_more_steps():
    planned = plan(EXPERIMENT, ["epo"], 3, linear_steps=1500)
    steps = {f.name: f.methods[0].candidates[0].experiment.steps for f in planned.fronts}
    assert steps == {"epo": 1000, LINEAR: 1500}


@pytest.mark.full
def test_a_front_is_trained_and_trained_no_further(tmp_path):
    options = {"method": ("epo",), "rays": 2, "seeds": 1, "devices": 1, "quiet": True}
    outcome, failures = front(SMALL, tmp_path, **options)
    assert not failures
    assert np.isfinite(outcome.volumes(outcome.methods[0])).all() or "no unit" in str(
        conclusions(outcome)
    )
    before = {f: f.stat().st_mtime_ns for f in tmp_path.glob("members/*/*/result.json")}
    assert len(before) == 2 + 2 + 2
    front(SMALL, tmp_path, **options)
    assert before == {f: f.stat().st_mtime_ns for f in tmp_path.glob("members/*/*/result.json")}


@pytest.mark.full
def test_a_conditioned_network_gives_all_points_of_a_front(tmp_path):
    options = {"method": (), "rays": 3, "seeds": 1, "devices": 1, "quiet": True}
    outcome, failures = front(
        SMALL, tmp_path, conditions=("palora",), conditioned_steps=40, **options
    )
    assert not failures
    (found,) = outcome.methods
    assert (found.networks, found.steps, outcome.linear.networks) == (1, 40, 3)
    assert len(np.unique(found.values[0, :, 1])) == 3
    folder = next(tmp_path.glob("members/*/seed-0/points.json")).parent
    expected = evaluate_at_preferences(folder, [rays(2, 3)[2]])[0]
    assert found.values[0, 2] == pytest.approx(
        [expected["digit"]["accuracy"], expected["value"]["mae"]]
    )
    again, _ = front(SMALL, tmp_path, conditions=("palora",), conditioned_steps=40, **options)
    np.testing.assert_array_equal(again.methods[0].values, found.values)


def test_the_old_flag_of_compare_names_the_verb(capsys):
    for flag in (["--front", "8"], ["--front=8"]):
        assert main(["compare", "--experiment", "digits", *flag]) == 2
        assert "use the verb front" in capsys.readouterr().err
