"""Distances of solvers from the exact points of the toy problem's fronts, as a table in Markdown.

python benchmarks/fronts.py
"""

import numpy as np

from mtljax.balancing import (
    Balancer,
    chebyshev,
    epo,
    ew,
    ferero,
    hypervolume,
    pmgda,
    pmtl,
    stch,
)
from mtljax.balancing.rays import hypervolume as dominated_volume
from mtljax.balancing.rays import rays
from mtljax.pareto.toy import Shape, Toy

COUNT = 8
CORNERS: dict[Shape, float] = {"convex": 4.4, "concave": 1.1}
"""Coordinates of the reference point of each shape: 1.1 times the largest loss of the front."""


def solvers(corner: float) -> dict[str, Balancer]:
    """Returns the compared balancers; tolerances below the distances that they are to show."""
    return {
        "epo:tolerance=1e-5": epo(tolerance=1e-5),
        "pmgda:tolerance=1e-3": pmgda(tolerance=1e-3),
        "ferero": ferero(),
        "chebyshev": chebyshev(),
        "stch:mu=1e-3": stch(mu=1e-3),
        f"pmtl:rays={COUNT}": pmtl(rays=COUNT),
        "hypervolume": hypervolume(reference=(corner, corner)),
        "ew": ew(),
    }


def main() -> None:
    """Prints the table."""
    preferences = rays(2, COUNT)
    print("| method | " + " | ".join(f"{s}: from point | front | volume" for s in CORNERS) + " |")
    print("|---|" + "---:|" * 3 * len(CORNERS))
    cells: dict[str, list[str]] = {}
    for shape, corner in CORNERS.items():
        toy = Toy(shape)
        points = np.array([toy.point(ray) for ray in preferences])
        for name, balancer in solvers(corner).items():
            reached = toy.descend(balancer, preferences)
            away = np.linalg.norm(reached - points, axis=1).max()
            volume = dominated_volume(reached, np.full(2, corner))
            distance = max(map(toy.distance, reached))
            cells.setdefault(name, []).extend([f"{away:.4f}", f"{distance:.4f}", f"{volume:.3f}"])
    for name, row in cells.items():
        print(f"| `{name}` | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
