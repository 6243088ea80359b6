"""Optimizers and schedules by name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtljax.optim.optimizers import OPTIMIZERS, make_optimizer
from mtljax.optim.schedules import SCHEDULES, make_schedule, new_plateau

PARAMS = {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}


def train(optimizer, steps=1, gradients=None, params=PARAMS):
    """Parameters after steps with constant gradients."""
    gradients = gradients or jax.tree.map(jnp.ones_like, params)
    state = optimizer.init(params)
    for _ in range(steps):
        updates, state = jax.jit(optimizer.update)(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params


def rates(schedule, steps, learning_rate=1.0):
    """The learning rate of every step, as plain gradient descent shows it."""
    optimizer = make_optimizer("sgd", learning_rate, schedule, steps)
    state, gradients = optimizer.init({"x": jnp.zeros(())}), {"x": jnp.ones(())}
    found = []
    for _ in range(steps):
        updates, state = optimizer.update(gradients, state)
        found.append(-float(updates["x"]))
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_descends(name):
    after = train(make_optimizer(name, 1e-2, "constant", 10), steps=3)
    for leaf, before in zip(jax.tree.leaves(after), jax.tree.leaves(PARAMS), strict=True):
        assert np.isfinite(leaf).all()
        assert (np.asarray(leaf) < before).all()


DECAYING = ["adamw", "nadamw", "lamb", "lion", "lars:trust_coefficient=1", "muon"]


@pytest.mark.parametrize("name", DECAYING)
def test_decay_leaves_biases_alone_unless_asked(name):
    draw = np.random.default_rng(0)
    gradients = jax.tree.map(lambda x: jnp.asarray(draw.normal(size=x.shape), x.dtype), PARAMS)

    def change(**how):
        """How far weight decay moves each parameter in one step."""
        join = "," if ":" in name else ":"
        after = [
            train(
                make_optimizer(f"{name}{join}weight_decay={decay}", 0.1, "constant", 10, **how),
                gradients=gradients,
            )
            for decay in (0.5, 0.0)
        ]
        return jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), *after)

    assert change()["kernel"] > 1e-4
    assert change()["bias"] == 0
    if name != "muon":  # whose other parameters have an adam_weight_decay of their own
        assert change(decay_biases=True)["bias"] > 1e-4


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_warms_up_to_the_peak(name):
    found = rates(f"{name}:warmup=4", 20)
    np.testing.assert_allclose(found[:5], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)
    assert max(found) == pytest.approx(1.0)
    assert rates(name, 20)[0] == pytest.approx(1.0)


def test_schedules_against_their_formulas():
    t = np.arange(20)
    np.testing.assert_allclose(rates("constant", 20, 0.3), np.full(20, 0.3), rtol=1e-6)
    np.testing.assert_allclose(
        rates("cosine:end=0.1", 20), 0.1 + 0.9 * (1 + np.cos(np.pi * t / 20)) / 2, rtol=1e-5
    )
    np.testing.assert_allclose(rates("linear", 20), 1 - t / 20, rtol=1e-5)
    np.testing.assert_allclose(rates("step:every=5,factor=0.1", 20), 0.1 ** (t // 5), rtol=1e-5)
    np.testing.assert_allclose(rates("step", 21), 0.5 ** (np.arange(21) // 7), rtol=1e-6)


def test_warmup_longer_than_the_run_is_a_part_of_it():
    np.testing.assert_allclose(rates("cosine:warmup=9", 3), [0.1, 0.2, 0.3], rtol=1e-6)


def test_long_gradients_are_clipped_and_short_ones_are_not():
    clipped = make_optimizer("sgd", 1.0, "constant", 10, clip_norm=2.0)
    for size, expected in ((10.0, 2.0), (0.1, 0.1 * np.sqrt(15))):
        gradients = jax.tree.map(lambda x, size=size: jnp.full_like(x, size), PARAMS)
        after = train(clipped, gradients=gradients)
        moved = optax.tree.norm(jax.tree.map(jnp.subtract, after, PARAMS))
        assert float(moved) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("adamm", 1e-3, "constant", 9), "unknown optimizer 'adamm'; did you mean 'adam'?"),
        (("adam:beta=1", 1e-3, "constant", 9), "optimizer 'adam' has no argument 'beta'"),
        (("adam:b1=x", 1e-3, "constant", 9), "optimizer 'adam': b1 must be a number, not 'x'"),
        (("adam", 0.0, "constant", 9), "learning_rate must be > 0 and finite, not 0.0"),
        (("adam", float("inf"), "constant", 9), "learning_rate must be > 0 and finite, not inf"),
        (("adam", float("nan"), "constant", 9), "learning_rate must be > 0 and finite, not nan"),
        (("adam", 1e-3, "constnt", 9), "unknown schedule 'constnt'; did you mean 'constant'?"),
        (("adam", 1e-3, "step:every=-1", 9), "every must be >= 0 steps, not -1"),
        (("adam", 1e-3, "cosine:warmup=-1", 9), "warmup must be >= 0 steps, not -1"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        make_optimizer(*arguments)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, float("nan")])
def test_impossible_clipping(clip_norm):
    with pytest.raises(ValueError, match="clip_norm must be > 0"):
        make_optimizer("sgd", 1.0, "constant", 1, clip_norm=clip_norm)


STAGES = {
    "fusion": {"trunk_0": {"Conv_0": jnp.ones((2, 2))}, "trunk_1": {"Conv_0": jnp.ones((2, 2))}},
    "task_a": {"kernel": jnp.ones((2, 2))},
}
STAGE_OF = {"trunk_0": 0, "trunk_1": 1}.get


def of_stages(params):
    """One number of each: the first stage's, the second's, the head's."""
    assert all((leaf == leaf[0, 0]).all() for leaf in jax.tree.leaves(params))
    return [float(leaf[0, 0]) for leaf in jax.tree.leaves(params)]


def test_layers_learn_the_slower_the_further_they_are_from_the_heads():
    made = (
        make_optimizer("adamw:weight_decay=0.5", 0.1, "constant", 9, clip_norm=9.0, **more)
        for more in ({}, {"layer_decay": 0.5, "stage_of": STAGE_OF})
    )
    plain, scaled = (of_stages(train(optimizer, params=STAGES)) for optimizer in made)
    moved = (1 - np.array(scaled)) / (1 - np.array(plain))
    np.testing.assert_allclose(moved, [0.25, 0.5, 1], rtol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 1.5, -0.1, float("nan")])
def test_impossible_layer_decay(decay):
    with pytest.raises(ValueError, match=r"layer_decay must be in \(0, 1\]"):
        make_optimizer("sgd", 1.0, "constant", 1, layer_decay=decay)


@pytest.mark.parametrize(("steps", "moved"), [(2, [0, 0, 2]), (3, [0, 1, 3]), (5, [1, 3, 5])])
def test_stages_unfreeze_from_the_heads_downwards(steps, moved):
    options = {"unfreeze_every": 2, "stage_of": STAGE_OF}
    after = train(make_optimizer("sgd", 1.0, "constant", 9, **options), steps, params=STAGES)
    assert of_stages(after) == [1 - count for count in moved]


def test_what_is_not_yet_unfrozen_does_not_decay_and_nothing_is_compiled_again():
    optimizer = make_optimizer(
        "adamw:weight_decay=0.5", 0.1, "constant", 9, unfreeze_every=2, stage_of=STAGE_OF
    )
    update, params = jax.jit(optimizer.update), STAGES
    state = optimizer.init(params)
    for count in range(6):
        updates, state = update(STAGES, state, params)
        params = optax.apply_updates(params, updates)
        assert [value < 1 for value in of_stages(params)] == [count >= 4, count >= 2, True]
    assert update._cache_size() == 1


@pytest.mark.parametrize("every", [0, -1])
def test_impossible_unfreezing(every):
    with pytest.raises(ValueError, match="unfreeze_every must be >= 1 update"):
        make_optimizer("sgd", 1.0, "constant", 1, unfreeze_every=every)


def test_l2_sp_pulls_to_the_start_as_its_formula_says():
    draw = np.random.default_rng(0)
    start, gradient = (
        jax.tree.map(lambda x: jnp.asarray(draw.normal(size=x.shape), x.dtype), STAGES)
        for _ in range(2)
    )
    optimizer = make_optimizer(
        "sgd", 0.1, "constant", 9, l2_sp=0.7, is_pretrained=lambda path: path.startswith("fusion/")
    )
    found = train(optimizer, 5, gradient, start)
    wide = lambda tree: [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    for w0, g, after, alpha in zip(
        wide(start), wide(gradient), wide(found), (0.7, 0.7, 0.0), strict=True
    ):
        w = w0
        for _ in range(5):
            w = w - 0.1 * (g + alpha * (w - w0))
        np.testing.assert_allclose(after, w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay_biases", [False, True])
def test_what_l2_sp_pulls_does_not_decay_besides_and_the_rest_does(decay_biases):
    optimizer = make_optimizer(
        "adamw:weight_decay=0.5",
        0.1,
        "constant",
        9,
        decay_biases=decay_biases,
        l2_sp=0.7,
        is_pretrained=lambda path: path.startswith("fusion/"),
    )
    zeros = jax.tree.map(jnp.zeros_like, STAGES)
    np.testing.assert_allclose(of_stages(train(optimizer, 1, zeros, STAGES)), [1, 1, 0.95])


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_impossible_l2_sp(strength):
    with pytest.raises(ValueError, match="l2_sp must be >= 0 and finite"):
        make_optimizer("sgd", 1.0, "constant", 1, l2_sp=strength)


def test_poly_against_its_formula():
    t = np.arange(20)
    np.testing.assert_allclose(rates("poly", 20), (1 - t / 20) ** 0.9, rtol=1e-5)
    found = rates("poly:power=2,end=0.1,warmup=4", 20)
    np.testing.assert_allclose(found[4:], 0.1 + 0.9 * (1 - t[:16] / 16) ** 2, rtol=1e-5)


def plateau_rates(schedule, scores):
    """The learning rate before the first evaluation and after each."""
    plateau = make_schedule(schedule, 1.0, 100)
    optimizer = make_optimizer("sgd", 1.0, schedule, 100)
    state, found = optimizer.init({"x": jnp.zeros(())}), []
    for score in (None, *scores):
        if score is not None:
            state = (state[0], plateau.observe(state[1], np.float64(score)))
        updates, state = optimizer.update({"x": jnp.ones(())}, state)
        found.append(-float(updates["x"]))
    return found


@pytest.mark.parametrize(
    ("schedule", "scores", "expected"),
    [
        ("plateau:patience=2,factor=0.5", (3, 2, 2, 2, 1), [1, 1, 1, 1, 0.5, 0.5]),
        ("plateau:patience=2,factor=0.5", (3, 4, 2, 4, 1, 4), [1] * 7),
        ("plateau:patience=1,factor=0.5", (-3, -2, -2, -4, -3), [1, 1, 0.5, 0.25, 0.25, 0.125]),
        ("plateau:patience=1,factor=0.5,end=0.3", (1, 2, 2, 2), [1, 1, 0.5, 0.3, 0.3]),
        ("plateau:patience=3,factor=0.5", (1, 2, 2, 2, 2, 2, 2), [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
        ("plateau:patience=1", (float("nan"), 1e308, float("inf")), [1, 0.1, 0.01, 1e-3]),
    ],
)
def test_the_plateau_schedule_reduces_after_evaluations_without_a_better_score(
    schedule, scores, expected
):
    np.testing.assert_allclose(plateau_rates(schedule, scores), expected, rtol=1e-6)


def test_stacked_runs_have_a_plateau_each():
    plateau = make_schedule("plateau:patience=1,factor=0.5", 1.0, 100)
    state = jax.tree.map(lambda x: jnp.stack([x, x]), new_plateau())
    state = plateau.observe(plateau.observe(state, np.array([1.0, 1.0])), np.array([2.0, 0.5]))
    np.testing.assert_array_equal(state.scale, [0.5, 1.0])
    assert state.evaluations.dtype == np.int32


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("poly:power=0", "power must be > 0 and finite, not 0.0"),
        ("plateau:factor=1.5", "factor must be between 0 and 1, not 1.5"),
        ("plateau:patience=0", "patience must be >= 1 evaluation, not 0"),
        ("plateau:end=1", "end must be >= 0 and < 1, not 1.0"),
    ],
)
def test_mistakes_in_schedules(schedule, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer("sgd", 1.0, schedule, 9)


@pytest.mark.parametrize(
    ("scales", "factors"),
    [
        ({"trunk": 0.1}, [0.1, 0.1, 1]),
        ({"trunk": 0.1, "task_a": 10.0}, [0.1, 0.1, 10]),
        ({"trunk": 0.1, "trunk_1": 0.5}, [0.1, 0.5, 1]),  # the last one counts
        ({"fusion/trunk_0": 3.0}, [3, 1, 1]),
    ],
)
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_learning_rates_of_modules_are_multiplied(scales, factors, layer_decay):
    """Weight decay too, and layer-wise decay multiplies further."""
    made = [
        make_optimizer("adamw:weight_decay=0.5", 0.01, "constant", 9, **more)
        for more in ({}, {"scales": scales, "layer_decay": layer_decay, "stage_of": STAGE_OF})
    ]
    plain, scaled = (of_stages(train(optimizer, params=STAGES)) for optimizer in made)
    moved = (1 - np.array(scaled)) / (1 - np.array(plain))
    depth = np.array([layer_decay**2, layer_decay, 1])
    np.testing.assert_allclose(moved, np.array(factors) * depth, rtol=1e-4)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ({"task_b": 2.0}, "unknown module 'task_b' among those that train; did you mean 'task_a'?"),
        ({"trunks": 2.0}, "did you mean 'trunk'?"),
        ({"trunk": 0.0}, "trunk must be > 0 and finite, not 0.0; to keep .* freeze it: --freeze"),
        ({"trunk": float("nan")}, "trunk must be > 0 and finite, not nan"),
    ],
)
def test_impossible_learning_rates_of_modules(scales, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        make_optimizer("sgd", 1.0, "constant", 1, scales=scales).init(STAGES)
