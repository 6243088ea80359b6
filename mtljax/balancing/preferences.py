"""Methods that descend to the point of a Pareto front that a preference names.

A preference p has weights p_t, larger for tasks that matter more. Its ray is the set of losses with
equal p_t L_t, and its point is that where the ray meets the front; linear scalarization reaches
other points, and none where the front is concave.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mtljax.balancing import base, linear_program, solvers

LEAST_SHARE = 1e-3
"""Lower bound of a task's share in the logarithm, for losses of 0."""
LEAST_PREFERENCE = 1e-6
"""Lower bound of a preference whose inverse is taken."""


@base.with_spec
def epo(tolerance: float = 1e-4) -> base.Balancer:
    """EPO: descent to the Pareto-optimal point with equal weighted losses.

    With s_t = p_t L_t / sum_i p_i L_i, the non-uniformity is m = sum_t s_t log(T s_t), and its
    gradient is a multiple of sum_t a_t g_t with a_t = p_t (log(T s_t) - m). If m exceeds the
    tolerance, the x on the simplex is that with the largest <g_a, g_x>, where <g_t, g_x> may be
    negative only for tasks with <g_t, g_a> > 0, not for the task with the largest s_t, and
    otherwise is at least <g_t, g_a>. If it does not, x has the largest sum_t <g_t, g_x> with all
    <g_t, g_x> >= 0. Both are linear programs, solved exactly; without a solution x is proportional
    to p. The weights are T x.

    Convention: the paper's code, with weights of mean 1; shares below 1e-3 count as 1e-3 in the
    logarithm (LibMOON). The heads receive the weighted loss.

    Args:
      tolerance: Non-uniformity at which the losses count as equal.

    References:
      Mahapatra and Rajan, 2020, "Multi-task learning with user preferences", ICML
    """
    if tolerance < 0:
        raise ValueError(f"tolerance must be >= 0, not {tolerance}")

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        preference, count = base.preference(signals), signals.present.sum()
        scaled = preference * jnp.maximum(signals.losses, 0.0)
        share = scaled / jnp.maximum(scaled.sum(), base.TINY)
        logs = jnp.log(jnp.maximum(count * share, LEAST_SHARE))
        uneven = solvers.dot(share, logs)
        adjustment = jnp.where(signals.present, preference * (logs - uneven), 0.0)
        is_worst = signals.present & (scaled == scaled.max())
        cosines, norms, inside = solvers.unit(signals.gramian, signals.present)
        lengths = jnp.where(inside, norms, 0.0)
        pull = solvers.matvec(cosines, lengths * adjustment)  # <g_t, g_a> / |g_t|
        is_aided = inside & (pull > 0)
        aided = is_aided.any()
        least = jnp.where(aided & ~is_worst, jnp.minimum(pull, 0.0), 0.0)
        balanced = _best_of_hull(cosines, lengths, pull, least, inside & ~(is_aided & ~is_worst))
        total = solvers.matvec(cosines, lengths)
        limit = jnp.minimum(jnp.max(jnp.where(inside, pull * norms, -jnp.inf)), 0.0)
        row = lengths * pull, limit
        lowered = _best_of_hull(cosines, lengths, total, jnp.zeros_like(pull), inside, row)
        weights, solved = (
            jnp.where(uneven > tolerance, a, b) for a, b in zip(balanced, lowered, strict=True)
        )
        weights = jnp.where(solved, weights, preference / jnp.maximum(preference.sum(), base.TINY))
        return jnp.where(signals.present, count * weights, 0.0), state

    return base.Balancer(
        init=base.stateless,
        combine=combine,
        needs=base.Needs.GRAMIAN,
        heads="weighted",
        prefers=True,
    )


@base.with_spec
def pmgda(tolerance: float = 1e-2, share: float = 0.8) -> base.Balancer:
    """PMGDA: MGDA on the ray of the preference; elsewhere a direction that approaches the ray, too.

    With u the unit vector of the ray, proportional to 1 / p, the distance of the losses from it is
    h = |L - <L, u> u|. If h is below the tolerance, the weights are those of `mgda`. If not, the
    direction is the combination, with weights on the simplex, of the unit gradients of the losses
    and of h that maximizes min_t <g_t, d> with <grad h, d> >= share |grad h|: a linear program,
    solved exactly.

    Convention: the paper's "exact" constraint, as in LibMOON, whose ray is the preference, not its
    inverse. The heads receive the unweighted loss, since weights can be negative.

    Args:
      tolerance: Distance from the ray below which the losses count as on it.
      share: The paper's sigma, in [0, 1].

    References:
      Zhang et al., 2024, arXiv:2402.09492
    """
    if tolerance < 0 or not 0 <= share <= 1:
        raise ValueError(f"needs tolerance >= 0 and 0 <= share <= 1, not {tolerance}, {share}")

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present, gramian = signals.present, signals.gramian
        ray = direction_of_ray(base.preference(signals), present)
        losses = jnp.where(present, signals.losses, 0.0)
        across = losses - solvers.dot(losses, ray) * ray
        distance = jnp.linalg.norm(across)
        slopes = across / jnp.maximum(distance, base.TINY)
        mixed = jnp.eye(len(losses) + 1, len(losses)).at[-1].set(slopes)
        extended = solvers.matvec(mixed, solvers.matvec(gramian, mixed.T))
        cosines, norms, inside = solvers.unit(extended, jnp.append(present, True))
        tasks, smallest = inside[:-1], jnp.min(jnp.where(inside[:-1], norms[:-1], jnp.inf))
        largest = jnp.max(jnp.where(tasks, norms[:-1], 0.0))
        rows = jnp.where(inside, cosines, 0.0) * inside[:, None]
        sums = inside.astype(jnp.float32)[None] * jnp.array([[1.0], [-1.0]])
        bound = jnp.append(jnp.where(tasks, 0.0, 1.0), jnp.array([-share, 1.0, -1.0]))

        def best(unit: Array) -> linear_program.Solution:
            """Solution with the floor as the last variable, in this unit."""
            floor = jnp.append(jnp.where(tasks, unit / norms[:-1], 0.0), jnp.zeros(3))
            matrix = jnp.concatenate([-rows, sums])
            objective = jnp.append(jnp.where(inside, 0.0, -1.0), jnp.sign(unit))
            return linear_program.maximize(objective, jnp.column_stack([matrix, floor]), bound)

        # The floor is at most the smallest norm, and negative ones are at least minus the largest.
        descent, ascent = best(smallest), best(-jnp.sqrt(smallest * largest))
        solution = jax.tree.map(lambda a, b: jnp.where(descent.solved, a, b), descent, ascent)
        parts = jnp.where(inside, solution.x[:-1] / norms, 0.0)
        correction = parts[:-1] + parts[-1] * slopes
        descends = (distance < tolerance) | ~inside[-1] | ~solution.solved
        weights = jnp.where(descends, solvers.min_norm(gramian, present), correction)
        return jnp.where(present, weights, 0.0), state

    return base.Balancer(
        init=base.stateless, combine=combine, needs=base.Needs.GRAMIAN, prefers=True
    )


@base.with_spec
def ferero(pull: float = 0.5) -> base.Balancer:
    """FERERO: descent of all losses that approaches the ray of the preference at a given rate.

    With u the unit vector of the ray, proportional to 1 / p, the direction maximizes
    min_t <g_t, d> - |d|^2 / 2 such that the part of the losses across u decreases at the rate
    `pull` times itself. So the losses decrease by pull L_t + m u_t with an m, which is negative if
    the ray can only be reached at the cost of all tasks.

    Convention: order cone of nonnegative vectors and equality constraint, as in the paper's code,
    whose ray is the preference, not its inverse. The problem is solved exactly; the paper's
    single-loop variant takes one gradient step on its dual per update. The heads receive the
    unweighted loss, since weights can be negative.

    Args:
      pull: The paper's c_h; from its code.

    References:
      Chen et al., 2024, arXiv:2412.01773
    """
    if pull < 0:
        raise ValueError(f"pull must be >= 0, not {pull}")

    def combine(signals: base.Signals, state: base.State, key: Array) -> base.Combined:
        present = signals.present
        ray = direction_of_ray(base.preference(signals), present)
        losses = pull * jnp.where(present, signals.losses, 0.0)
        cosines, norms, inside = solvers.unit(signals.gramian, present)
        # With w_t = shrink_t x_t / square, loss t decreases by (C x)_t / shrink_t.
        smallest = jnp.min(jnp.where(inside, norms, jnp.inf))
        square = jnp.maximum(smallest**2, base.TINY)
        shrink = jnp.where(inside, smallest / norms, 0.0)
        unit_losses, unit_ray = shrink * losses, shrink * ray
        length = jnp.maximum(jnp.linalg.norm(unit_ray), base.TINY)
        along = unit_ray / length
        mirror, is_along = _reflection(along)
        to_mirror = lambda vector: solvers.matvec(mirror, vector)
        rest = ~is_along[:, None] & ~is_along[None, :]
        mirrored = to_mirror(solvers.matvec(cosines, mirror))
        inner = jnp.where(rest, mirrored, jnp.eye(len(along)))
        across = lambda target: to_mirror(
            solvers.pseudo_solve(inner, jnp.where(is_along, 0.0, to_mirror(target)), ~is_along)
        )
        toward = across(unit_losses)
        down = along - across(solvers.matvec(cosines, along))
        level = solvers.dot(along, solvers.matvec(cosines, toward) - unit_losses)
        gain = solvers.dot(along, solvers.matvec(cosines, down))

        def narrow(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bounds
            middle = (low + high) / 2
            # Losses decrease by losses + rate * ray; the task that gains least sets the speed.
            rate = (level + gain * square * middle / length) / length
            least = jnp.argmin(jnp.where(present, losses + rate * ray, jnp.inf))
            faster = ray[least] > middle
            return jnp.where(faster, middle, low), jnp.where(faster, high, middle)

        ends = jnp.min(jnp.where(present, ray, jnp.inf)), ray.max()
        low, high = jax.lax.fori_loop(0, 30, narrow, ends)
        x = toward + square * (low + high) / 2 / length * down
        return jnp.where(inside, x * shrink / square, 0.0), state

    return base.Balancer(
        init=base.stateless, combine=combine, needs=base.Needs.GRAMIAN, prefers=True
    )


def direction_of_ray(
    preference: Float[Array, " T"], present: Bool[Array, " T"]
) -> Float[Array, " T"]:
    """Unit vector of the losses with equal p_t L_t; 0 for absent tasks."""
    ray = jnp.where(present, 1 / jnp.maximum(preference, LEAST_PREFERENCE), 0.0)
    return ray / jnp.maximum(jnp.linalg.norm(ray), base.TINY)


def _reflection(unit: Float[Array, " T"]) -> tuple[Float[Array, "T T"], Bool[Array, " T"]]:
    """Householder reflection of a nonnegative unit vector to minus the axis nearest to it.

    Returns:
      The symmetric matrix, and True for the axis. The other columns span the complement.
    """
    is_axis = jnp.arange(len(unit)) == jnp.argmax(unit)
    normal = unit + is_axis
    return jnp.eye(len(unit)) - 2 * jnp.outer(normal, normal) / solvers.dot(normal, normal), is_axis


def _best_of_hull(
    cosines: Float[Array, "T T"],
    norms: Float[Array, " T"],
    objective: Float[Array, " T"],
    least: Float[Array, " T"],
    bounded: Bool[Array, " T"],
    row: tuple[Float[Array, " T"], Float[Array, ""]] | None = None,
) -> linear_program.Solution:
    """Weights x on the simplex that maximize sum_t x_t norm_t objective_t.

    For `bounded` tasks, the component of the direction along the task's gradient is at least
    `least`; x' a >= b for the `row` (a, b). Tasks of norm 0 get weight 0.
    """
    inside = norms > 0
    norms = jnp.where(inside, norms, 1.0)
    smallest = jnp.min(jnp.where(inside, norms, jnp.inf))
    least = jnp.where(bounded, least, 0.0)
    # A variable is the length of the task's part of the direction, in a unit that bounds all.
    unit = jnp.maximum(smallest, jnp.max(jnp.abs(least)))
    matrix = jnp.where(bounded[:, None] & inside, -cosines, 0.0)
    bound = jnp.where(bounded, -least / unit, 1.0)
    if row is not None:
        coefficients = jnp.where(inside, row[0] / norms, 0.0)
        scale = jnp.maximum(jnp.max(jnp.abs(coefficients)), base.TINY)
        matrix = jnp.concatenate([matrix, -coefficients[None] / scale])
        bound = jnp.append(bound, -row[1] / unit / scale)
    shares = jnp.where(inside, smallest / norms, 0.0)
    matrix = jnp.concatenate([matrix, shares[None], -shares[None]])
    bound = jnp.append(bound, jnp.array([1.0, -1.0]) * smallest / unit)
    objective = jnp.where(inside, objective, -jnp.max(jnp.abs(objective)) - 1)
    solution = linear_program.maximize(objective, matrix, bound)
    return solution._replace(x=jnp.where(inside, solution.x * unit / norms, 0.0))
