"""Pages on migrating from other libraries: both columns run, names and factors are right."""

import re

import jax
import numpy as np
import pytest
from support.site_pages import DOCS, python_blocks

from mtljax import balancing
from mtljax.config.balancers import balancer_from_text
from mtljax.models import FUSIONS

TORCHJD, LIBMTL = (DOCS / "tutorials" / f"from_{name}.md" for name in ("torchjd", "libmtl"))


def is_theirs(block):
    return re.search(r"^(import torch|from LibMTL|from torch)", block, re.M) is not None


def run_ours(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    namespace = {}
    for block in python_blocks(page):
        if not is_theirs(block):
            exec(block, namespace)
    return namespace


def test_the_step_beside_torchjds_learns_and_the_weights_project(tmp_path, monkeypatch):
    namespace = run_ours(TORCHJD, tmp_path, monkeypatch)
    assert float(namespace["logs"]["loss"]["digit"]) < 2  # log 10 = 2.3: it has learned
    assert namespace["direction"].tolist() == pytest.approx([0.1, 0.3])
    assert (namespace["jacobian"] @ (namespace["weights"] @ namespace["jacobian"]) >= -1e-5).all()


@pytest.mark.full
def test_the_experiment_beside_libmtls_learns_and_the_weighting_works(tmp_path, monkeypatch):
    namespace = run_ours(LIBMTL, tmp_path, monkeypatch)
    assert namespace["result"].test["digit"]["accuracy"] > 0.8
    jacobian = np.array([[4.0, 0.0], [0.0, 0.5]], np.float32)
    direction = balancing.aggregate(namespace["unit"], jacobian)
    assert direction.tolist() == pytest.approx([1.0, 1.0])


def test_names_beside_libmtls_are_those_of_balancers_and_fusions():
    table = re.compile(r"^\| LibMTL `--\w+` \|.*\n\|---.*\n((?:\|.*\n)+)", re.M)
    weightings, architectures = (
        re.findall(r"`([a-z][^`]*)`", " ".join(row.split("|")[2] for row in rows.splitlines()))
        for rows in table.findall(LIBMTL.read_text())
    )
    assert len(weightings) > 20
    for expression in weightings:
        assert balancer_from_text(expression)
    assert len(architectures) == 8
    assert set(architectures) <= FUSIONS.keys()


@pytest.mark.full
@pytest.mark.filterwarnings("ignore::Warning:torchjd", "ignore::Warning:cvxpy")
def test_the_columns_of_torchjd_run_and_directions_differ_by_the_factors():
    torch = pytest.importorskip("torch")
    aggregation = pytest.importorskip("torchjd.aggregation")
    namespace, (first, second) = {}, filter(is_theirs, python_blocks(TORCHJD))
    exec(first, namespace)
    labels = {"digit": torch.zeros(4, dtype=torch.long), "value": torch.zeros(4)}
    losses = [namespace["step"](torch.ones(4, 8, 8), labels) for _ in range(20)]
    assert sum(losses[-1]) < sum(losses[0])
    exec(second, namespace)

    rows = re.findall(
        r"^\| `([A-Z]\w+\(.*?\))` \| `(\w+\(.*?\))` \| (\w) \|$", TORCHJD.read_text(), re.M
    )
    assert len(rows) == 12
    jacobian = np.array(jax.random.normal(jax.random.key(0), (3, 6)))
    jacobian[1] -= jacobian[0]
    for theirs, ours, factor in rows:
        aggregator = eval(theirs, vars(aggregation))
        balancer = eval(ours, vars(balancing))
        expected = aggregator(torch.tensor(jacobian, dtype=torch.float64)).numpy()
        expected = expected * (3 if factor == "T" else 1)
        found = balancing.aggregate(balancer, jacobian)
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=2e-3 * np.abs(expected).max(), err_msg=ours
        )
