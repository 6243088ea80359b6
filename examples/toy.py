"""Toy problem with two objectives (CAGrad, Nash-MTL), optimized with every balancer.

    python examples/toy.py [--steps 100000] [--picture toy.png]

Two losses of two parameters: conflicting valleys on both sides of a flat ridge, and below them a
bowl with the Pareto set, a nearly straight line from (-7, -8.4) to (7, -8.4). From some starting
points the mean gradient stops in a valley; methods that resolve the conflict continue. The script
prints the final distance to that line for each method and starting point, and draws the
trajectories. tests/balancing/test_toy.py asserts where each method ends.

Without images this is a script and not an `Experiment`: the balancers run as in the train step, on
a Jacobian of two parameters.

References:
  Liu et al., 2021, arXiv:2110.14048, appendix; Navon et al., 2022, arXiv:2202.01017, appendix
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from mtljax.balancing import BALANCERS, Ahead, Needs, Signals
from mtljax.balancing.base import combine_rows, gramian

STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))  # as in Nash-MTL
SCALE = np.array([0.1, 1.0])  # scale of the losses in Nash-MTL and FAMO; both 1 in CAGrad
LOWER_BOUND = -21 * SCALE  # subtracted for methods that require positive losses, as in FAMO
POSITIVE_LOSSES = (
    *("si", "gls", "uw_so", "imtl_l", "imtl", "uw", "famo", "go4align", "db_mtl", "dwa"),
    *("gradnorm", "ldc_mtl", "igb", "pivrg", "pbi", "cosmos", "hypervolume"),
    *("epo", "pmtl", "pmgda", "ferero"),
)
LEARNING_RATE = 1e-3
PARETO_X, PARETO_Y = 7.0, -8.4  # Pareto set: |x| <= 7; minima of weighted sums: y -8.43 to -8.355
ARGUMENTS = {
    "famo": {"decay": 1e-5},  # as in the code of FAMO
    "fixed": {"weights": (1.0, 1.0)},
    "pivrg": {"stl_losses": tuple(SCALE)},  # the minima, after the lower bound is subtracted
}


def losses_of(theta):
    """Returns the losses [2] at parameters `theta` [2]."""
    x, y = theta
    above, below = jnp.maximum(jnp.tanh(0.5 * y), 0), jnp.maximum(jnp.tanh(-0.5 * y), 0)
    valley = lambda inner: jnp.log(jnp.maximum(jnp.abs(inner), 5e-6)) + 6
    bowl = lambda center: ((x - center) ** 2 + 0.1 * (y + 8) ** 2) / 10 - 20
    first = above * valley(0.5 * (-x - 7) - jnp.tanh(-y)) + below * bowl(7)
    second = above * valley(0.5 * (-x + 3) + jnp.tanh(-y) + 2) + below * bowl(-7)
    return jnp.stack([first, second]) * SCALE


def look_ahead(theta, repeat, weights, step_size, steps):
    """Trial steps of plain descent on the weighted losses; see `Signals.lookahead`."""
    moved = theta
    for _ in range(steps):
        moved = moved - step_size * weights @ jax.jacobian(losses_of)(moved)
    before, after = jax.jacobian(losses_of)(theta), jax.jacobian(losses_of)(moved)
    return Ahead(repeat(losses_of(moved)), lambda cotangents: before @ (cotangents @ after))


@functools.partial(jax.jit, static_argnames=("name", "steps"))
def optimize(name, starts, steps, points=200):
    """Runs Adam from each start, as in the papers; returns trajectories [starts, points, 2]."""
    balancer = BALANCERS[name](**ARGUMENTS.get(name, {}))
    optimizer = optax.adam(LEARNING_RATE)
    samples = balancer.samples
    repeat = lambda x: x if samples == 1 else jnp.broadcast_to(x, (samples, *x.shape))
    shift = LOWER_BOUND if name in POSITIVE_LOSSES else np.zeros(2)

    def update(carry, key):
        theta, state, moments, step = carry
        jacobian = jax.jacobian(losses_of)(theta)
        products = None
        if balancer.needs is Needs.GRAMIAN:
            products = gramian(jacobian)
            if samples > 1:
                shape = (samples, 2, samples, 2)
                products = jnp.broadcast_to(products[None, :, None, :], shape)
        ahead = lambda *arguments: look_ahead(theta, repeat, *arguments)
        signals = Signals(
            losses=repeat(losses_of(theta) - shift),
            present=repeat(jnp.ones(2, bool)),
            step=step,
            gramian=products,
            jacobian=jacobian if balancer.needs is Needs.JACOBIAN else None,
            lookahead=ahead if balancer.lookahead else None,
        )
        combined, state = balancer.combine(signals, state, key)
        if balancer.gives_weights:
            combined = combine_rows(combined if samples == 1 else combined.sum(0), jacobian)
        updates, moments = optimizer.update(combined, moments)
        theta = theta + updates
        if balancer.observe is not None:
            state = balancer.observe(signals, losses_of(theta) - shift, state)
        return (theta, state, moments, step + 1), None

    def trajectory(start):
        carry = start, balancer.init(2, start), optimizer.init(start), jnp.zeros((), jnp.int32)

        def segment(carry, key):
            carry, _ = jax.lax.scan(update, carry, jax.random.split(key, steps // points))
            return carry, carry[0]

        return jax.lax.scan(segment, carry, jax.random.split(jax.random.key(0), points))[1]

    return jax.vmap(trajectory)(starts)


def distance_to_pareto_set(theta):
    """Distance of points [..., 2] to the line that approximates the Pareto set."""
    x = np.clip(theta[..., 0], -PARETO_X, PARETO_X)
    nearest = np.stack([x, np.full(theta.shape[:-1], PARETO_Y)], -1)
    return np.linalg.norm(theta - nearest, axis=-1)


def draw(trajectories, path):
    """Draws one panel per method, over the contours of the mean loss."""
    columns = 6
    rows = -(-len(trajectories) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.4 * columns, 2.4 * rows), squeeze=False)
    side = np.linspace(-12, 12, 160)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    mean = np.asarray(jax.vmap(losses_of)(jnp.asarray(grid)).mean(-1)).reshape(160, 160)
    for axis, (name, thetas) in zip(axes.flat, trajectories.items(), strict=False):
        axis.contour(side, side, mean, levels=15, linewidths=0.4, cmap="Greys")
        axis.plot(
            [-PARETO_X, PARETO_X], [PARETO_Y] * 2, color="0.4", linewidth=3, solid_capstyle="round"
        )
        for start, theta in zip(STARTS, thetas, strict=True):
            line = np.vstack([start, theta])
            axis.plot(*line.T, linewidth=1.2)
            axis.plot(*start, "ko", markersize=3)
            axis.plot(*theta[-1], "r*", markersize=6)
        axis.set(title=name, xlim=(-12, 12), ylim=(-12, 12), xticks=[], yticks=[])
    for axis in axes.flat[len(trajectories) :]:
        axis.remove()
    figure.suptitle(
        "Trajectory of each method from five starting points (dots) to the final parameters "
        "(stars), over the contours of the mean loss; gray bar: Pareto set"
    )
    figure.tight_layout(rect=(0, 0, 1, 0.99))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000, help="at least 200")
    parser.add_argument("--picture", default="toy.png", help="path of the figure")
    options = parser.parse_args()

    print("final distance to the Pareto set, per starting point:", *STARTS)
    trajectories, start = {}, time.perf_counter()
    for name in BALANCERS:
        trajectories[name] = np.asarray(optimize(name, jnp.asarray(STARTS), options.steps))
        distances = distance_to_pareto_set(trajectories[name][:, -1])
        print(f"{name:14}", *(f"{distance:7.2f}" for distance in distances), flush=True)
    draw(trajectories, options.picture)
    print(f"{options.picture} written after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
