"""Combinators on plain matrices, against formulas written down again in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.balancing import distance, jacobians, loss_values
from support.combinators import FORMS, IDENTITIES, REFUSED
from support.problem import make_balancer
from support.references import REFERENCES

from mtljax.balancing import (
    BALANCERS,
    COMBINATORS,
    aggregate,
    cagrad,
    chain,
    config,
    cr_mogm,
    describe,
    dualproj,
    every,
    ew,
    fairgrad,
    fixed,
    grouped,
    imtl_g,
    mgda,
    nash_mtl,
    normalized,
    pcgrad,
    preferred,
    si,
    upgrad,
    uw,
)
from mtljax.balancing.base import WithHeads
from mtljax.balancing.matrix import plain_signals

J = jacobians("conflicting", 3)
LOSSES = loss_values(3)
P = (2.0, 0.5, 0.5)
"""A preference with mean 1."""


def reference(name, jacobian, losses=LOSSES):
    return REFERENCES[name]()(jacobian, losses, jax.random.key(0))


def combined(balancer, jacobian=J, losses=LOSSES, state=None, step=0):
    """(what `combine` returns, state) for a matrix."""
    jacobian, losses = jnp.asarray(jacobian, jnp.float32), jnp.asarray(losses, jnp.float32)
    state = balancer.init(3, jacobian[0]) if state is None else state
    signals = plain_signals(balancer, jacobian, losses, jnp.ones(3, bool))
    return balancer.combine(signals._replace(step=jnp.asarray(step)), state, jax.random.key(0))


@pytest.mark.parametrize("name", sorted(FORMS))
def test_the_refused_pairs_are_those_of_the_table(name):
    refused = {}
    for method in BALANCERS:
        try:
            FORMS[name](make_balancer(method))
        except ValueError as error:
            refused[method] = str(error)
    assert set(refused) == REFUSED[name]
    assert {method for method in BALANCERS if name not in describe(method).combinators} == set(
        refused
    )
    for method, message in refused.items():
        assert message.startswith(f"{name} does not take {method}: it ")
        assert "\n" not in message


@pytest.mark.parametrize("name", sorted(IDENTITIES))
@pytest.mark.parametrize("method", ["cagrad", "upgrad", "nash_mtl", "pcgrad", "imtl_g", "gradnorm"])
def test_identity_settings_change_no_bit(name, method):
    if method in REFUSED[name]:
        with pytest.raises(ValueError, match=f"{name} does not take {method}"):
            IDENTITIES[name](make_balancer(method))
        return
    plain = make_balancer(method)
    expected = aggregate(plain, J, LOSSES)
    assert (aggregate(IDENTITIES[name](plain), J, LOSSES) == expected).all()


# --- chain ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["cagrad", "nash_mtl", "pcgrad", "aligned_mtl", "db_mtl"])
def test_chain_balances_the_gradients_of_the_weighted_losses(method):
    weights = np.array([1.0, 3.0, 0.2])
    direction = aggregate(chain(fixed(weights.tolist()), make_balancer(method)), J, LOSSES)
    expected = reference(method, weights[:, None] * J, weights * LOSSES)
    assert distance(direction, expected) <= 1e-4


def test_chain_of_weightings_multiplies_their_weights():
    weights, _ = combined(chain(fixed((1.0, 2.0, 3.0)), si(), fixed((2.0, 2.0, 1.0))))
    # SI sees the losses times (1, 2, 3), so that this factor cancels.
    np.testing.assert_allclose(weights, np.array([2.0, 2.0, 1.0]) / LOSSES, rtol=1e-6)


def test_chain_gives_the_heads_the_weights_of_the_first():
    weights = (1.0, 3.0, 0.2)
    output, _ = combined(chain(fixed(weights), mgda()))
    assert isinstance(output, WithHeads)
    np.testing.assert_allclose(output.heads, weights)
    assert chain(fixed(weights), mgda()).heads == "given"
    assert chain(fixed(weights), BALANCERS["gradnorm"]()).heads == "weighted"


def test_chain_sums_the_samples_of_its_first_balancer():
    """`auto_lambda` weighs the first of two samples with 0.1 from the start, the second with 0."""
    first = BALANCERS["auto_lambda"](learning_rate=0.0)
    balancer = chain(first, cagrad())
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 3, 16))
    rows[1] = 1e3  # must not be looked at
    signals = plain_signals(balancer, jnp.zeros((3, 16)), jnp.ones(3), jnp.ones(3, bool))
    flat = rows.reshape(6, 16)
    gram = jnp.asarray((flat @ flat.T).reshape(2, 3, 2, 3), jnp.float32)
    signals = signals._replace(gramian=gram, lookahead=lambda *_: _Still())
    output, _ = balancer.combine(signals, balancer.init(3, jnp.zeros(16)), jax.random.key(0))
    direction = np.einsum("st,std->d", output.shared, rows)
    assert distance(direction, reference("cagrad", 0.1 * rows[0])) <= 1e-4
    np.testing.assert_allclose(output.heads, [[0.1] * 3, [0.0] * 3], rtol=1e-6)


class _Still:
    """A trial step that changes no loss."""

    def products(self, coefficients):
        return jnp.zeros_like(coefficients)


def test_chain_lets_both_learn_from_the_losses_after_an_update():
    famo = BALANCERS["famo"]
    balancer = chain(uw(), famo())
    _, state = combined(balancer)
    signals = plain_signals(balancer, jnp.asarray(J), jnp.asarray(LOSSES), jnp.ones(3, bool))
    after = jnp.asarray(LOSSES) * jnp.array([0.5, 1.0, 2.0])
    observed = balancer.observe(signals, after, state)
    alone = famo()
    expected = alone.observe(  # uw starts from 1 / 2 for every task
        signals._replace(losses=signals.losses / 2), after / 2, alone.init(3, None)
    )
    np.testing.assert_allclose(observed["second"]["logits"], expected["logits"], rtol=1e-5)


def test_chain_sums_the_samples_for_a_second_that_learns_from_the_effect():
    famo = BALANCERS["famo"]
    balancer = chain(BALANCERS["auto_lambda"](learning_rate=0.0), famo())
    losses, after = jnp.asarray(LOSSES), jnp.asarray(LOSSES) * jnp.array([0.5, 1.0, 2.0])
    signals = plain_signals(balancer, jnp.zeros((3, 16)), losses, jnp.ones(3, bool))
    signals = signals._replace(lookahead=lambda *_: _Still())
    start = balancer.init(3, jnp.zeros(16))
    _, state = balancer.combine(signals, start, jax.random.key(0))
    observed = balancer.observe(signals, jnp.stack([after, after]), state)
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), start, observed)
    alone = famo()
    of_one = plain_signals(alone, jnp.zeros((3, 16)), 0.1 * losses, jnp.ones(3, bool))
    expected = alone.observe(of_one, 0.1 * after, alone.init(3, None))
    np.testing.assert_allclose(observed["second"]["logits"], expected["logits"], rtol=1e-5)


@pytest.mark.parametrize("scaled", [lambda b: chain(si(), b), lambda b: normalized(b, "loss")])
@pytest.mark.parametrize("method", ["nash_mtl", "fairgrad", "ntkmtl", "krum", "pmgda"])
def test_a_loss_of_zero_without_gradient_harms_no_other_task(method, scaled):
    """Its weight is 1e20, of which the square overflows."""
    rows, losses = J.copy(), LOSSES.copy()
    rows[1] = losses[1] = 0.0
    balancer = make_balancer(method)
    direction = aggregate(scaled(balancer), rows, losses)
    of_log = rows / np.where(losses > 0, losses, 1.0)[:, None]
    reads = losses > 0 if scaled(balancer).spec.name == "chain" else losses
    np.testing.assert_allclose(direction, aggregate(balancer, of_log, reads), rtol=1e-4, atol=1e-4)


# --- preferred ------------------------------------------------------------------------------------


def test_preference_of_upgrad_and_dualproj_weighs_what_is_projected():
    p = np.asarray(P)
    for balancer, targets in ((upgrad(), np.diag(p)), (dualproj(), p[None, :])):
        expected = sum(project_on_dual_cone(target @ J, J) for target in targets)
        assert distance(aggregate(preferred(balancer, P), J), expected) <= 1e-4


def project_on_dual_cone(vector, rows):
    """By enumeration of the active constraints."""
    best = None
    for mask in range(2 ** len(rows)):
        active = [i for i in range(len(rows)) if mask >> i & 1]
        point = vector
        if active:
            a = rows[active]
            point = vector - a.T @ np.linalg.solve(a @ a.T, a @ vector)
        feasible = (rows @ point >= -1e-9).all()
        if feasible and (best is None or np.linalg.norm(point - vector) < best[0]):
            best = np.linalg.norm(point - vector), point
    return best[1]


@pytest.mark.parametrize("balancer", [nash_mtl(), fairgrad(alpha=2.0)])
def test_preference_of_fair_methods_is_that_of_the_bargaining_problem(balancer):
    alpha = 1.0 if balancer.spec.name == "nash_mtl" else 2.0
    weights, _ = combined(preferred(balancer, P))
    weights = np.asarray(weights, np.float64)
    np.testing.assert_allclose(J @ J.T @ weights, (P / weights) ** (1 / alpha), rtol=1e-4)


def test_preference_of_mgda_is_the_ratio_of_the_smallest_gains():
    weights, _ = combined(preferred(mgda(), P))
    weights = np.asarray(weights, np.float64)
    gains = J @ (weights @ J) / P
    least = gains[weights > 0]
    assert len(least) >= 2
    np.testing.assert_allclose(least, gains.min(), rtol=1e-4)


def test_preference_of_imtl_g_and_config_is_the_ratio_of_the_projections():
    unit = J / np.linalg.norm(J, axis=1, keepdims=True)
    for balancer in (imtl_g(), config()):
        projections = unit @ np.asarray(aggregate(preferred(balancer, P), J), np.float64) / P
        np.testing.assert_allclose(projections, projections[0], rtol=1e-4)


def test_preference_of_cagrad_moves_its_center():
    direction = np.asarray(aggregate(preferred(cagrad(c=0.0), P), J), np.float64)
    assert distance(direction, np.asarray(P) @ J / 3) <= 1e-6


@pytest.mark.parametrize("method", sorted(set(BALANCERS) - REFUSED["preferred"]))
def test_a_preference_changes_the_result_and_its_scale_does_not(method):
    plain, rows = make_balancer(method), jacobians("random", 3)
    direction = aggregate(preferred(plain, P), rows, LOSSES)
    again = aggregate(preferred(plain, tuple(10 * p for p in P)), rows, LOSSES)
    np.testing.assert_allclose(direction, again, rtol=1e-5, atol=1e-6)
    # First step from 1; the maximum, or the vertex of the linear program, may be the same.
    if method not in ("gradnorm", "chebyshev", "epo"):
        assert distance(direction, np.asarray(aggregate(plain, rows, LOSSES))) > 1e-3


def test_a_preference_of_zero_leaves_a_task_out():
    for balancer in (mgda(), nash_mtl(), ew()):
        direction = aggregate(preferred(balancer, (1.0, 0.0, 1.0)), J, LOSSES)
        others = aggregate(balancer, J[[0, 2]], LOSSES[[0, 2]])
        scale = 1.5 if balancer.spec.name == "ew" else None
        unit = lambda v: np.asarray(v) / np.linalg.norm(v)
        np.testing.assert_allclose(unit(direction), unit(others), atol=1e-5)
        if scale:
            np.testing.assert_allclose(direction, scale * others, rtol=1e-5, atol=1e-6)


# --- normalized -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["mgda", "pcgrad", "db_mtl", "trimmed_mean"])
def test_normalized_by_norm_balances_unit_gradients(method):
    unit = J / np.linalg.norm(J, axis=1, keepdims=True)
    direction = aggregate(normalized(make_balancer(method), "norm"), J, LOSSES)
    assert distance(direction, reference(method, unit)) <= 1e-4


def test_normalized_by_loss_balances_the_gradients_of_log_losses():
    direction = aggregate(normalized(cagrad(), "loss"), J, LOSSES)
    assert distance(direction, reference("cagrad", J / LOSSES[:, None])) <= 1e-4


@pytest.mark.parametrize(
    ("by", "scales"),
    [("initial_loss", (1.0, 1.0, 1.0)), ("average_loss", (1.0, 1.2, 1.36))],
)
def test_normalized_by_earlier_losses_remembers_them(by, scales):
    balancer = normalized(cagrad(), by, decay=0.8)
    state, losses = None, np.ones(3)
    for value, scale in zip((1.0, 2.0, 2.0), scales, strict=True):
        weights, state = combined(balancer, losses=value * losses, state=state)
        expected = reference("cagrad", J / scale)
        assert distance(np.asarray(weights) @ J, expected) <= 1e-4


# --- every ----------------------------------------------------------------------------------------


def test_every_uses_the_last_weights_in_between():
    balancer = every(nash_mtl(), 3)
    first, state = combined(balancer)
    signals = plain_signals(balancer.between, jnp.asarray(J), jnp.ones(3), jnp.ones(3, bool))
    again, after = balancer.between.combine(signals, state, jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(after["shared"], state["shared"])
    assert balancer.between.needs.value == "losses"
    assert balancer.period == 3


def test_every_gives_a_task_that_had_no_label_yet_the_mean_weight():
    balancer = every(nash_mtl(), 3)
    present = jnp.array([True, False, True])
    jacobian = jnp.where(present[:, None], jnp.asarray(J, jnp.float32), 0.0)
    signals = plain_signals(balancer, jacobian, jnp.ones(3), present)
    first, state = balancer.combine(signals, balancer.init(3, jacobian[0]), jax.random.key(0))
    assert first[1] == 0
    signals = plain_signals(balancer.between, jnp.asarray(J), jnp.ones(3), jnp.ones(3, bool))
    weights, _ = balancer.between.combine(signals, state, jax.random.key(1))
    np.testing.assert_array_equal(weights[jnp.array([0, 2])], first[jnp.array([0, 2])])
    np.testing.assert_allclose(weights[1], (first[0] + first[2]) / 2, rtol=1e-6)


# --- grouped --------------------------------------------------------------------------------------


def test_grouped_balances_every_group_by_itself():
    rng = np.random.default_rng(1)
    shapes = {
        "fusion/trunk_0/Dense_0/kernel": (4, 3),
        "fusion/trunk_0/Dense_0/bias": (3,),
        "fusion/trunk_0/Norm_0/scale": (3,),
        "fusion/trunk_1/Dense_0/kernel": (3, 5),
    }
    rows = {path: rng.normal(size=(3, *shape)) for path, shape in shapes.items()}
    for by, groups in {
        "parameter": [[path] for path in shapes],
        "module": [list(shapes)[:2], ["fusion/trunk_0/Norm_0/scale"], list(shapes)[3:]],
        "stage": [list(shapes)[:3], list(shapes)[3:]],
    }.items():
        balancer = grouped(cagrad(), by)
        signals = plain_signals(balancer, jnp.zeros((3, 2)), jnp.ones(3), jnp.ones(3, bool))
        jacobian = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), rows)
        signals = signals._replace(jacobian=jacobian)
        shared = {path: jnp.zeros(shape) for path, shape in shapes.items()}
        found, _ = balancer.combine(signals, balancer.init(3, shared), jax.random.key(0))
        for group in groups:
            flat = np.concatenate([rows[path].reshape(3, -1) for path in group], axis=1)
            expected = reference("cagrad", flat)
            direction = np.concatenate([np.ravel(found[path]) for path in group])
            assert distance(direction, expected) <= 1e-4, (by, group)


def test_grouped_refuses_what_learns_from_the_losses_after_an_update():
    learns = dataclasses.replace(mgda(), observe=lambda signals, losses_after, state: state)
    with pytest.raises(ValueError, match="grouped does not take mgda: it learns from the losses"):
        grouped(learns, "module")


# --- text -----------------------------------------------------------------------------------------


def test_every_combinator_is_exported():
    assert set(FORMS) | {"cr_mogm"} <= set(COMBINATORS)


def test_cr_mogm_refuses_what_has_no_weights_of_its_own_at_every_update():
    for inner in (every(mgda(), 2), chain(uw(), mgda()), BALANCERS["graddrop"]()):
        with pytest.raises(ValueError, match="cr_mogm takes a balancer with one weight per task"):
            cr_mogm(inner)
    assert distance(aggregate(chain(uw(), cr_mogm(pcgrad())), J), reference("pcgrad", J / 2)) < 1e-4
