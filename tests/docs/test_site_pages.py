"""Pages of the site with code cells: what they compute is what they say."""

import re

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from support import site_pages

CONCEPTS = site_pages.with_cells("concepts")


def stem(page):
    return page.stem


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function from a page to the namespace of its cells; figures can be counted afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: None)
    matplotlib.use("Agg")
    plt.close("all")
    yield site_pages.run_cells
    plt.close("all")


@pytest.mark.parametrize("page", CONCEPTS, ids=stem)
def test_a_page_of_concepts_has_equations_and_one_picture_with_a_description(page):
    text = page.read_text()
    assert re.search(r"^\$\$$", text, re.M)
    assert len(re.findall(r"^ *alt: \S.{40}", text, re.M)) == 1
    assert text.count("plt.show()") == 1


def page_of(name):
    return site_pages.DOCS / "concepts" / f"{name}.md"


@pytest.mark.full
def test_methods_that_read_gradients_leave_the_valley_and_equal_weighting_does_not(run):
    paths = run(page_of("multi_task_learning"))["paths"]
    ends = {name: np.asarray(path[:, -1]) for name, path in paths.items()}
    assert ends["ew"][2, 1] > 1  # still in the valley
    assert max(abs(ends[name][:, 1] + 8.4).max() for name in ("mgda", "cagrad")) < 0.1
    assert len(plt.get_fignums()) == 1


@pytest.mark.full
def test_the_tasks_of_digits_agree_and_differ_in_scale(run, capsys):
    found = run(page_of("jacobian_and_gramian"))
    assert found["cosines"][:10].mean(0).min() > -0.05
    assert found["cosines"][-10:].mean(0).min() > -0.05
    assert found["norms"][0, 1] > 3 * np.delete(found["norms"][0], 1).max()
    printed = capsys.readouterr().out.splitlines()
    assert "J d = [-1.  3.]" in printed[0]
    assert len(plt.get_fignums()) == 1


def test_methods_cost_what_their_input_costs(run):
    groups = run(page_of("balancer_costs"))["groups"]
    plain = {"moml", "auto_lambda", "famo"}
    assert max(cost for name, cost in groups["losses"].items() if name not in plain) < 1.1
    several = {"modo", "sdmgrad", "forum"}
    costs = [cost for name, cost in groups["gramian"].items() if name not in several]
    assert 2 < min(costs) < max(costs) < 2.5
    assert groups["gramian"]["nash_mtl"] == 2.31
    assert groups["gramian"]["pcgrad"] == 2.16
    assert len(plt.get_fignums()) == 1


def test_independent_trunks_are_shared_parameters_and_hard_sharing_has_the_fewest(run):
    counts = run(page_of("feature_sharing"))["counts"]
    assert counts["independent"][1] == 0
    assert next(iter(counts)) == "none"
    assert counts["independent"][0] == pytest.approx(2 * counts["none"][0])
    assert len(plt.get_fignums()) == 1


def test_choosing_on_test_and_many_uncorrected_tests_are_optimistic(run, capsys):
    found = run(page_of("honest_comparison"))
    assert found["by_test"][-1] > 0.925
    assert abs(np.array(found["by_validation"]) - 0.9).max() < 0.002
    assert max(found["rates"]["p < 0.05, Holm"]) < 0.08
    assert min(found["rates"]["p < 0.05"]) > 0.1
    first, second = map(eval, capsys.readouterr().out.splitlines())
    assert first["B"] < first["A"]
    assert second["A"] < second["B"]
    assert len(plt.get_fignums()) == 1


@pytest.mark.full
def test_labels_differ_in_dependence_but_gradients_do_not(run):
    results = run(page_of("dependent_tasks"))["results"]
    bits = {name: found[1] for name, found in results.items()}
    assert bits["digits"] == pytest.approx(np.log2(10), abs=0.01)
    assert bits["multi_digits"] < 0.015
    means = {name: found[2][1].mean() for name, found in results.items()}
    assert 0 < min(means.values()) < max(means.values()) < 0.25
    assert len(plt.get_fignums()) == 1


@pytest.mark.full
def test_a_trunk_helps_a_task_that_its_labels_contain_and_not_new_classes(run):
    results = run(page_of("transfer"))["results"]
    means = {
        name: {setting: values.mean(1) for setting, values in settings.items()}
        for name, settings in results.items()
    }
    new_digits, odd = means["digits 0-4, then 5-9"], means["class, then odd"]
    assert (new_digits["the same, frozen"][2:] < new_digits["random weights"][2:] - 0.02).all()
    assert (odd["the same, frozen"][2:] > odd["random weights"][2:]).all()
    assert len(plt.get_fignums()) == 1


@pytest.mark.full
def test_a_task_suffers_most_from_the_attack_on_its_loss(run):
    results = run(page_of("safety"))["results"]
    accuracy, error = (
        {name: [pair[i] for pair in pairs] for name, pairs in results.items()} for i in (0, 1)
    )
    assert accuracy["digit"][0] > 95
    assert accuracy["digit"][-2] < accuracy["both"][-2] < accuracy["value"][-2] < 80
    assert error["value"][-1] > error["both"][-1] > error["digit"][-1] > 2
    assert len(plt.get_fignums()) == 1


@pytest.mark.full
@pytest.mark.parametrize("page", site_pages.with_cells("start"), ids=stem)
def test_a_first_run_learns_and_draws_the_figures_that_are_shown(page, run):
    result = run(page)["result"]
    assert result.test["digit"]["accuracy"] > 0.9
    assert result.test["value"]["mae"] < result.constant_predictor["value"]["mae"] / 2


@pytest.mark.full
def test_equal_weighting_reaches_only_the_ends_of_a_concave_front(run):
    found = run(site_pages.DOCS / "gallery" / "fronts.md")
    for (shape, name), points in found["points"].items():
        problem, smallest = found["problems"][shape], points.min(1)
        assert max(map(problem.distance, points)) < 0.02, (shape, name)
        assert (smallest < 0.02).all() == ((shape, name) == ("concave", "ew"))
    assert len(plt.get_fignums()) == 1
