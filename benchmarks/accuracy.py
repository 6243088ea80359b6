"""Accuracy of the balancers' float32 solutions at hard scales, beside TorchJD in float64.

    python benchmarks/accuracy.py [--problems 17] [--balancers mgda cagrad ...]

Problems: random Jacobians of 3 x 64, 8 x 256 and 40 x 4000 with row norms over four orders of
magnitude, half of them with conflicts. The error is the distance of the direction to that of the
float64 reference of the tests, written from the papers with general solvers, relative to its norm;
the table has the largest error over all problems. TorchJD's mean is scaled to our sum; the last
column is with the settings with which it is most exact (epsilon, iterations, regularization).
"""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np

from mtljax.balancing import FAMILIES, aggregate

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.balancing import ON_MATRIX, loss_values, made
from support.references import REFERENCES

try:
    import torch
    from torchjd import aggregation
    from torchjd._linalg._dual_cone import QuadprogProjector
except ImportError:
    torch = aggregation = None

SHAPES = ((3, 64), (8, 256), (40, 4000))
TORCHJD = {
    "ew": ("Sum", {}, {}),
    "mgda": ("MGDA", {}, {"epsilon": 1e-9, "max_iters": 20_000}),
    "upgrad": ("UPGrad", {}, {"reg_eps": 1e-12, "norm_eps": 1e-10}),
    "dualproj": ("DualProj", {}, {"reg_eps": 1e-12, "norm_eps": 1e-10}),
    "cagrad": ("CAGrad", {"c": 0.5}, {"norm_eps": 1e-10}),
    "imtl_g": ("IMTLG", {}, {}),
    "aligned_mtl": ("AlignedMTL", {}, {}),
    "config": ("ConFIG", {}, {}),
    "fairgrad": ("FairGrad", {"alpha": 1.0}, {}),
    "pcd": ("PCD", {}, {}),
}
"""Balancer -> aggregator of TorchJD, arguments that it requires, and those with which its solutions
are most exact. `reg_eps` and `norm_eps` of UPGrad and DualProj are those of their projector."""
MEANS = ("upgrad", "dualproj", "aligned_mtl")
"""Aggregators that take the mean over the tasks where we take the sum."""


def problem(shape, seed):
    """Returns (Jacobian with entries of float32, losses), both in float64."""
    num_tasks, width = shape
    rng = np.random.default_rng((seed, num_tasks))
    rows = rng.standard_normal(shape)
    if seed % 2:  # half of the tasks against the other half
        sign = np.where(np.arange(num_tasks) % 2 == 0, 1.0, -1.0)
        rows += sign[:, None] * rng.standard_normal(width)
    size = 10.0 ** np.linspace(-2, 2, num_tasks)[rng.permutation(num_tasks), None]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) * size
    return rows.astype(np.float32).astype(np.float64), loss_values(num_tasks, seed)


def distance(found, expected):
    """Relative to the expected direction."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def errors(name, problems):
    """Returns the largest errors of mtljax, of TorchJD and of TorchJD with exact settings."""
    _, required, exact = TORCHJD.get(name, ("", None, None))
    others = [] if aggregation is None or required is None else [required, required | exact]
    found = [[] for _ in range(1 + len(others))]
    for shape in SHAPES:
        direction = jax.jit(lambda j, x, n=shape[0]: aggregate(made(name, n), j, x))
        for seed in range(problems):
            jacobian, losses = problem(shape, seed)
            expected = REFERENCES[name]()(jacobian, losses, jax.random.key(0))
            ours = np.asarray(direction(jacobian, losses), np.float64)
            theirs = [torchjd_direction(name, jacobian, arguments) for arguments in others]
            for errors_of_one, direction_of_one in zip(found, [ours, *theirs], strict=True):
                errors_of_one.append(distance(direction_of_one, expected))
    return list(map(max, found))


def torchjd_direction(name, jacobian, arguments):
    """Direction of TorchJD's aggregator in float64, as a sum."""
    if "reg_eps" in arguments:
        arguments = {"projector": QuadprogProjector(**arguments)}
    found = getattr(aggregation, TORCHJD[name][0])(**arguments)(torch.tensor(jacobian)).numpy()
    return found * (len(jacobian) if name in MEANS else 1)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", type=int, default=17, help="for each of the three shapes")
    parser.add_argument("--balancers", nargs="+", default=ON_MATRIX)
    flags = parser.parse_args()
    print("| balancer | mtljax | TorchJD | TorchJD, exact settings |\n| --- | --- | --- | --- |")
    for name in (make.__name__ for family in FAMILIES.values() for make in family):
        if name in flags.balancers:
            cells = [f"{error:.0e}" for error in errors(name, flags.problems)]
            print(f"| `{name}` | {' | '.join(cells + ['-'] * (3 - len(cells)))} |", flush=True)


if __name__ == "__main__":
    main()
