"""The two-objective toy problem of the CAGrad and Nash-MTL papers, and every method's way over it.

    python examples/toy.py [--steps 100000] [--picture toy.png]

Two losses of two parameters: valleys that pull apart lie on both sides of a flat ridge, and below
them a bowl holds the Pareto set, a nearly straight line from (-7, -8.4) to (7, -8.4). From some
starts a plain average of the gradients gets stuck in a valley; a method that sees the conflict goes
on. Printed is how far from that line each method ends, per start; the picture shows the ways.

No images are involved, so this is a script and no `Experiment`: the balancers run as they do in the
train step, on a Jacobian of two parameters.

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

from mtljax.balancing import BALANCERS, Needs, Signals
from mtljax.balancing.base import combine_rows, gramian

STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))  # Nash-MTL's
SCALE = np.array([0.1, 1.0])  # of the losses: Nash-MTL's and FAMO's; both 1 in CAGrad's paper
LOWEST = -21 * SCALE  # below both losses, for the methods whose losses must be positive (FAMO's)
POSITIVE_ONLY = (
    "si",
    "gls",
    "uw_so",
    "imtl_l",
    "imtl",
    "uw",
    "famo",
    "go4align",
    "db_mtl",
    "dwa",
    "gradnorm",
)
LEFT_OUT = ("fixed", "auto_lambda", "moml", "forum", "krum", "trimmed_mean")
LEARNING_RATE = 1e-3
REACH, DEPTH = 7.0, -8.4  # of the Pareto set; minima of weighted sums lie at y = -8.43 to -8.355
ARGUMENTS = {"famo": {"decay": 1e-5}}  # its code's


def losses_of(theta):
    """[2] losses at theta [2]."""
    x, y = theta
    above, below = jnp.maximum(jnp.tanh(0.5 * y), 0), jnp.maximum(jnp.tanh(-0.5 * y), 0)
    valley = lambda inner: jnp.log(jnp.maximum(jnp.abs(inner), 5e-6)) + 6
    bowl = lambda centre: ((x - centre) ** 2 + 0.1 * (y + 8) ** 2) / 10 - 20
    first = above * valley(0.5 * (-x - 7) - jnp.tanh(-y)) + below * bowl(7)
    second = above * valley(0.5 * (-x + 3) - jnp.tanh(-y) + 2) + below * bowl(-7)
    return jnp.stack([first, second]) * SCALE


@functools.partial(jax.jit, static_argnames=("name", "steps"))
def ways(name, starts, steps, keep=200):
    """[starts, keep, 2]: every method descends by Adam, as in the papers."""
    balancer = BALANCERS[name](**ARGUMENTS.get(name, {}))
    optimizer = optax.adam(LEARNING_RATE)
    copies = balancer.samples
    alike = lambda x: x if copies == 1 else jnp.broadcast_to(x, (copies, *x.shape))
    shift = LOWEST if name in POSITIVE_ONLY else np.zeros(2)

    def update(carry, key):
        theta, state, moments, step = carry
        rows = jax.jacobian(losses_of)(theta)
        products = None
        if balancer.needs is Needs.GRAMIAN:
            products = gramian(rows)
            if copies > 1:
                shape = (copies, 2, copies, 2)
                products = jnp.broadcast_to(products[None, :, None, :], shape)
        signals = Signals(
            losses=alike(losses_of(theta) - shift),
            present=alike(jnp.ones(2, bool)),
            step=step,
            gramian=products,
            jacobian=rows if balancer.needs is Needs.JACOBIAN else None,
        )
        combined, state = balancer.combine(signals, state, key)
        if balancer.gives_weights:
            combined = combine_rows(combined if copies == 1 else combined.sum(0), rows)
        updates, moments = optimizer.update(combined, moments)
        theta = theta + updates
        if balancer.observe is not None:
            state = balancer.observe(signals, losses_of(theta) - shift, state)
        return (theta, state, moments, step + 1), None

    def way(start):
        carry = start, balancer.init(2, start), optimizer.init(start), jnp.zeros((), jnp.int32)

        def stretch(carry, key):
            carry, _ = jax.lax.scan(update, carry, jax.random.split(key, steps // keep))
            return carry, carry[0]

        return jax.lax.scan(stretch, carry, jax.random.split(jax.random.key(0), keep))[1]

    return jax.vmap(way)(starts)


def to_pareto_set(theta):
    """Distance from the line that the Pareto set nearly is."""
    along = np.clip(theta[..., 0], -REACH, REACH)
    nearest = np.stack([along, np.full(theta.shape[:-1], DEPTH)], -1)
    return np.linalg.norm(theta - nearest, axis=-1)


def draw(found, path):
    """All methods side by side, over the contours of the mean loss."""
    columns = 6
    rows = -(-len(found) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.4 * columns, 2.4 * rows), squeeze=False)
    side = np.linspace(-12, 12, 160)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    mean = np.asarray(jax.vmap(losses_of)(jnp.asarray(grid)).mean(-1)).reshape(160, 160)
    for axis, (name, thetas) in zip(axes.flat, found.items(), strict=False):
        axis.contour(side, side, mean, levels=15, linewidths=0.4, cmap="Greys")
        axis.plot([-REACH, REACH], [DEPTH] * 2, color="0.4", linewidth=3, solid_capstyle="round")
        for start, theta in zip(STARTS, thetas, strict=True):
            line = np.vstack([start, theta])
            axis.plot(*line.T, linewidth=1.2)
            axis.plot(*start, "ko", markersize=3)
            axis.plot(*theta[-1], "r*", markersize=6)
        axis.set(title=name, xlim=(-12, 12), ylim=(-12, 12), xticks=[], yticks=[])
    for axis in axes.flat[len(found) :]:
        axis.remove()
    figure.suptitle(
        "Each method's way from five starts (dots) to where it ends (stars), over the contours of "
        "the mean loss; the grey bar is the Pareto set"
    )
    figure.tight_layout(rect=(0, 0, 1, 0.99))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--picture", default="toy.png")
    options = parser.parse_args()

    print("distance from the Pareto set at the end, per start:", *STARTS)
    found, begin = {}, time.perf_counter()
    for name in BALANCERS:
        if name in LEFT_OUT:
            continue
        found[name] = np.asarray(ways(name, jnp.asarray(STARTS), options.steps))
        ends = to_pareto_set(found[name][:, -1])
        print(f"{name:14}", *(f"{end:7.2f}" for end in ends), flush=True)
    draw(found, options.picture)
    print(f"{options.picture} drawn after {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
