"""The same matrices through TorchJD, where it has the method. Needs the extra `parity`."""

import numpy as np
import pytest
from support.balancing import jacobians, loss_values

from mtljax.balancing import BALANCERS, aggregate, preferred
from mtljax.balancing.base import Signals

torch = pytest.importorskip("torch")
aggregation = pytest.importorskip("torchjd.aggregation")

# (ours, our arguments, theirs, their arguments, ours / theirs as a function of T)
MEAN = lambda count: count  # TorchJD takes the mean over tasks, we the sum
SAME = lambda count: 1
PAIRS = [
    ("ew", {}, "Sum", {}, SAME),
    ("mgda", {}, "MGDA", {"epsilon": 1e-9, "max_iters": 20_000}, SAME),
    ("upgrad", {}, "UPGrad", {}, MEAN),
    ("dualproj", {}, "DualProj", {}, MEAN),
    ("cagrad", {"c": 0.4}, "CAGrad", {"c": 0.4}, SAME),
    ("imtl_g", {}, "IMTLG", {}, SAME),
    ("aligned_mtl", {}, "AlignedMTL", {}, MEAN),
    ("aligned_mtl", {"scale": "rmse"}, "AlignedMTL", {"scale_mode": "rmse"}, MEAN),
    ("config", {}, "ConFIG", {}, SAME),
    ("krum", {"squared": False, "outliers": 1}, "Krum", {"n_byzantine": 1}, SAME),
    ("trimmed_mean", {"trim": 1}, "TrimmedMean", {"trim_number": 1}, SAME),
    ("fairgrad", {"alpha": 2.0}, "FairGrad", {"alpha": 2.0}, SAME),
    ("pcd", {}, "PCD", {}, SAME),
    ("pcd", {"tau": 0.5}, "PCD", {"tau": 0.5}, SAME),
]

# MGDA's Frank-Wolfe and UPGrad's regularized quadratic program stop at these distances from the
# exact solutions that ours are tested against elsewhere.
TOLERANCE = {"mgda": 1e-2, "upgrad": 1e-2, "dualproj": 1e-2, "cagrad": 1e-2, "fairgrad": 1e-3}


@pytest.mark.parametrize("kind", ["random", "conflicting"])
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]}-{pair[2]}")
def test_agrees_with_torchjd(pair, kind):
    name, ours, their_name, theirs, ratio = pair
    jacobian = jacobians(kind, 5)
    try:
        their = getattr(aggregation, their_name)(**theirs)
        expected = their(torch.tensor(jacobian, dtype=torch.float64)).numpy()
    except ImportError as missing:
        pytest.skip(f"TorchJD's {their_name}: {missing}")
    direction = aggregate(BALANCERS[name](**ours), jacobian, loss_values(5))
    expected = expected * ratio(5)
    error = np.linalg.norm(direction - expected) / np.linalg.norm(expected)
    assert error <= TOLERANCE.get(name, 1e-4)


@pytest.mark.parametrize("name", ["UPGrad", "DualProj", "ConFIG", "AlignedMTL"])
def test_the_preference_is_that_of_torchjd(name):
    ours = {"UPGrad": "upgrad", "DualProj": "dualproj", "ConFIG": "config"}.get(name, "aligned_mtl")
    preference = np.array([2.0, 0.5, 0.5, 1.0, 1.0])  # mean 1
    jacobian = jacobians("conflicting", 5)
    their = getattr(aggregation, name)(pref_vector=torch.tensor(preference))
    expected = their(torch.tensor(jacobian)).numpy()
    direction = aggregate(preferred(BALANCERS[ours](), preference), jacobian, loss_values(5))
    error = np.linalg.norm(direction - expected) / np.linalg.norm(expected)
    assert error <= TOLERANCE.get(ours, 1e-4)


@pytest.mark.parametrize(
    ("name", "ours", "their_name", "theirs"),
    [
        ("modo", {"gamma": 0.1, "rho": 0.05}, "MoDoWeighting", {"gamma": 0.1, "rho": 0.05}),
        ("sdmgrad", {"step_size": 0.5}, "SDMGradWeighting", {"lr": 0.5}),
    ],
)
def test_weights_on_independent_samples_agree_with_torchjds_over_steps(
    name, ours, their_name, theirs
):
    balancer, weighting = BALANCERS[name](**ours), getattr(aggregation, their_name)(**theirs)
    state, chance = balancer.init(5, None), np.random.default_rng(0)
    for _ in range(4):
        samples = chance.normal(size=(3, 5, 20)).astype(np.float32)
        signals = Signals(
            losses=np.ones((3, 5), np.float32),
            present=np.ones((3, 5), bool),
            step=np.int32(0),
            gramian=np.einsum("std,rud->stru", samples, samples),
        )
        found, state = balancer.combine(signals, state, None)
        expected = weighting(torch.tensor(samples[1] @ samples[2].T, dtype=torch.float64))
        np.testing.assert_allclose(found, [expected, np.zeros(5), np.zeros(5)], atol=1e-5)
