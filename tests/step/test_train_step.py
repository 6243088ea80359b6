"""The train step against gradients taken by hand, and each of its options."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.problem import (
    OPTIMIZER,
    TASKS,
    make,
    make_balancer,
    make_batch,
    make_model,
    relative_difference,
)
from support.tiers import full_except

from mtljax.balancing import aggregate
from mtljax.balancing.base import Needs
from mtljax.models import partition
from mtljax.models.partition import join
from mtljax.step.eval_step import make_eval_step
from mtljax.step.state import create_state
from mtljax.step.train_step import make_train_step
from mtljax.tasks import Classification


def losses_of(model, params, batch):
    """Mean loss of each task, written again without the step."""
    outputs = model.apply({"params": params, **CONSTANTS}, batch["image"], train=True)
    present = batch["present"]
    result = []
    for task in TASKS:
        total, count = task.loss(outputs[task.name], batch["labels"][task.name], present[task.name])
        result.append(total / count)
    return jnp.stack(result)


CONSTANTS = {"constants": {"mean": jnp.zeros(()), "std": jnp.full((), 0.8)}}


def stack_rows(tree):
    return jnp.concatenate([x.reshape(x.shape[0], -1) for x in jax.tree.leaves(tree)], 1)


@pytest.mark.parametrize(
    "name", full_except(["mgda"], ["ew", "fixed", "mgda", "pcgrad", "trimmed_mean"])
)
def test_shared_parameters_move_by_the_aggregated_jacobian(name):
    model, balancer, batch = make_model(), make_balancer(name), make_batch(1)
    state, step = make(balancer, model=model)
    new, _ = jax.jit(step)(state, batch)
    shared, specific = partition(state.params)
    rows = jax.jacrev(lambda s: losses_of(model, join(s, specific), batch))(shared)
    key = jax.random.split(jax.random.fold_in(state.key, 0), 3)[2]
    direction = aggregate(
        balancer, stack_rows(rows), losses_of(model, state.params, batch), key=key
    )
    moved = jax.tree.map(lambda a, b: ((a - b) / 0.05)[None], shared, partition(new.params)[0])
    assert relative_difference(direction, stack_rows(moved)[0]) <= 1e-4


@pytest.mark.parametrize("heads", ["own", "weighted"])
@pytest.mark.parametrize("name", full_except(["mgda"], ["fixed", "mgda"]))
def test_heads_receive_their_own_or_the_weighted_loss(name, heads):
    model, batch = make_model(), make_batch(1)
    state, step = make(make_balancer(name), model=model, heads=heads)
    new, logs = jax.jit(step)(state, batch)
    shared, specific = partition(state.params)
    weights = jnp.ones(3) if heads == "own" else jnp.stack([logs["weight"][t.name] for t in TASKS])
    loss = lambda s: weights @ losses_of(model, join(shared, s), batch)
    expected = jax.tree.map(lambda p, g: p - 0.05 * g, specific, jax.grad(loss)(specific))
    assert relative_difference(expected, partition(new.params)[1]) <= 1e-5


def test_features_level_reads_gradients_of_the_representation():
    model, balancer, batch = make_model(), make_balancer("mgda"), make_batch(1)
    state, step = make(balancer, model=model, level="features")
    _, logs = jax.jit(step)(state, batch)
    _, found = model.apply(
        {"params": state.params, **CONSTANTS}, batch["image"], train=True, mutable=["perturbations"]
    )

    def losses(perturbations):
        variables = {"params": state.params, **CONSTANTS, "perturbations": perturbations}
        outputs = model.apply(variables, batch["image"], train=True)
        return jnp.stack(
            [
                jnp.divide(
                    *t.loss(outputs[t.name], batch["labels"][t.name], batch["present"][t.name])
                )
                for t in TASKS
            ]
        )

    rows = stack_rows(jax.jacrev(losses)(found["perturbations"]))
    gram = np.asarray(rows @ rows.T, np.float64)
    weights = np.array([logs["weight"][t.name] for t in TASKS], np.float64)
    # At the minimum over the simplex, the gradient 2 G w is least where weights are positive.
    slope = gram @ weights
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    assert slope[weights > 1e-4] == pytest.approx(slope.min(), rel=1e-3)


@pytest.mark.parametrize("level", full_except(["parameters"], ["parameters", "features"]))
@pytest.mark.parametrize("name", full_except(["mgda"], ["ew", "famo", "mgda", "graddrop"]))
def test_microbatches_change_nothing(name, level):
    found = []
    for parts in (1, 3):
        state, step = make(make_balancer(name), level=level, microbatches=parts)
        step = jax.jit(step)
        for i in range(5):
            state, _ = step(state, make_batch(i))
        found.append(state.params)
    assert relative_difference(*found) <= 1e-5


@pytest.mark.parametrize(
    ("pullback", "jacobian"),
    full_except(
        [(2, "gramian")],
        [("vmap", "rows"), ("loop", "gramian"), (2, "rows"), (2, "gramian")],
    ),
)
def test_how_the_jacobian_is_taken_changes_nothing(pullback, jacobian):
    expected, found = (
        jax.jit(step)(state, make_batch(0))[0].params
        for state, step in (
            make(make_balancer("cagrad")),
            make(make_balancer("cagrad"), pullback=pullback, jacobian=jacobian),
        )
    )
    assert relative_difference(expected, found) <= 1e-5


@pytest.mark.parametrize(
    "name",
    full_except(["uw", "mgda"], ["ew", "uw", "dwa", "mgda", "pcgrad", "graddrop", "nash_mtl"]),
)
def test_a_task_absent_from_the_batch_has_no_loss_no_weight_and_no_influence(name):
    batch = make_batch(3, missing=0.0)
    batch["present"]["other"] = jnp.zeros(48, bool)
    batch["labels"]["other"] = jnp.full(48, jnp.nan)
    state, step = make(make_balancer(name))
    new, logs = jax.jit(step)(state, batch)
    assert float(logs["loss"]["other"]) == 0
    assert float(logs.get("weight", {}).get("other", 0.0)) == 0
    assert int(logs["skipped"]) == 0
    head = [path for path in partition(state.params)[1] if path.startswith("task_other")]
    assert head
    for path in head:
        assert jnp.array_equal(partition(state.params)[1][path], partition(new.params)[1][path])
    # The others move as if the task did not exist (random ones draw other numbers then).
    if name not in ("graddrop", "pcgrad"):
        two = TASKS[:2]
        fewer = make_model(tasks=two)
        state2, step2 = make(make_balancer(name), model=fewer, tasks=two)
        params = {k: v for k, v in state.params.items() if k != "task_other"}
        new2, _ = jax.jit(step2)(state2.replace(params=params), batch)
        kept = {k: v for k, v in new.params.items() if k != "task_other"}
        assert relative_difference(new2.params, kept) <= 1e-5


@pytest.mark.parametrize(("name", "level"), [("ew", "parameters"), ("mgda", "features")])
def test_what_stands_in_place_of_a_missing_label_does_not_matter(name, level):
    clean = make_batch(3, missing=0.5)
    fill = lambda x: jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else -7
    labels = {
        task: jnp.where(clean["present"][task], x, fill(x)) for task, x in clean["labels"].items()
    }
    state, step = make(make_balancer(name), level=level)
    step = jax.jit(step)
    (new, logs), (expected, wanted) = (
        step(state, batch) for batch in ({**clean, "labels": labels}, clean)
    )
    jax.tree.map(np.testing.assert_array_equal, (new.params, logs), (expected.params, wanted))
    assert int(logs["skipped"]) == 0


def test_a_non_finite_update_is_skipped_and_counted():
    state, step = make(make_balancer("uw"), ema=True, ema_decay=0.9)
    step = jax.jit(step)
    state, _ = step(state, make_batch(0))
    bad = make_batch(1)
    bad["image"] = bad["image"].at[0, 0, 0, 0].set(jnp.nan)
    after, logs = step(state, bad)
    assert int(logs["skipped"]) == 1
    assert (int(after.skipped), int(after.skipped_in_row), int(after.step)) == (1, 1, 2)
    again, logs = step(after, bad)
    assert (int(again.skipped_in_row), int(logs["skipped_in_row"])) == (2, 2)
    for field in ("params", "opt_state", "balancer_state", "ema", "model_state"):
        same = jax.tree.map(jnp.array_equal, getattr(state, field), getattr(after, field))
        assert all(jax.tree.leaves(same)), field
    after, logs = step(after, make_batch(2))
    assert (int(after.skipped), int(after.skipped_in_row), int(logs["skipped"])) == (1, 0, 0)


def test_the_average_of_parameters_warms_up_and_is_what_is_evaluated():
    state, step = make(make_balancer("ew"), ema=True, ema_decay=0.9)
    new, _ = jax.jit(step)(state, make_batch(0))
    expected = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, state.params, new.params)
    assert relative_difference(expected, new.ema) <= 1e-6
    evaluate = jax.jit(make_eval_step(make_model(), TASKS))
    by_average = evaluate(
        new.replace(params=jax.tree.map(jnp.zeros_like, new.params)), make_batch(1)
    )
    by_params = evaluate(new.replace(params=new.ema, ema=None), make_batch(1))
    assert relative_difference(by_average, by_params) == 0


@pytest.mark.full
def test_bfloat16_computes_in_it_and_keeps_float32_parameters():
    state, step = make(make_balancer("mgda"))
    exact, logs = jax.jit(step)(state, make_batch(0))
    state, step = make(make_balancer("mgda"), dtype=jnp.bfloat16)
    rough, rough_logs = jax.jit(step)(state, make_batch(0))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(rough.params))
    assert "bf16" in str(jax.make_jaxpr(step)(state, make_batch(0)))
    difference = abs(float(logs["loss"]["digit"] - rough_logs["loss"]["digit"]))
    assert 0 < difference < 0.02  # bfloat16 has 8 bits: 0.4 % of a loss near 1.5
    assert 0 < relative_difference(exact.params, rough.params) < 0.02


@pytest.mark.full
def test_recomputing_activations_changes_nothing_but_memory():
    found = []
    for remat in (False, True):
        model = make_model("cnn", widths=(8,), blocks=1, remat=remat)
        state, step = make(make_balancer("pcgrad"), model=model)
        assert ("remat" in str(jax.make_jaxpr(step)(state, make_batch(0)))) == remat
        found.append(jax.jit(step)(state, make_batch(0))[0].params)
    assert relative_difference(*found) <= 1e-5


@pytest.mark.full
def test_batch_statistics_are_updated_once_per_step():
    model = make_model("cnn", widths=(8,), blocks=1, norm="batch")
    found = []
    for name in ("ew", "famo", "pcgrad"):
        state, step = make(make_balancer(name), model=model)
        found.append(jax.jit(step)(state, make_batch(0))[0].model_state["batch_stats"])
    assert relative_difference(found[0], found[1]) <= 1e-6
    assert relative_difference(found[0], found[2]) <= 1e-6


def test_augmentation_gets_a_key_per_example_and_changes_the_step():
    seen = []

    def augment(keys, batch):
        seen.append(keys.shape)
        noise = jax.vmap(lambda key: jax.random.normal(key, (4, 4, 1)))(keys)
        return {**batch, "image": batch["image"] + noise}

    state, step = make(make_balancer("ew"), augment=augment)
    with_noise, _ = jax.jit(step)(state, make_batch(0))
    state, step = make(make_balancer("ew"))
    without, _ = jax.jit(step)(state, make_batch(0))
    assert seen == [(48,)]
    assert relative_difference(with_noise.params, without.params) > 1e-3


@pytest.mark.parametrize("level", ["parameters", "features"])
def test_the_step_compiles_once_and_gives_up_its_state(level):
    state, step = make(make_balancer("mgda"), level=level)
    step = jax.jit(step, donate_argnums=0)
    for i in range(3):
        before = state
        state, _ = step(state, make_batch(i))
        assert jax.tree.leaves(before.params)[0].is_deleted()
    assert step._cache_size() == 1


def test_seeds_can_be_vmapped():
    balancer, model = make_balancer("pcgrad"), make_model()
    _, step = make(balancer, model=model)
    create = lambda key: create_state(key, model, TASKS, balancer, OPTIMIZER, make_batch(0))
    states = jax.vmap(create)(jax.random.split(jax.random.key(7), 3))
    together, _ = jax.jit(jax.vmap(step, in_axes=(0, None)))(states, make_batch(0))
    alone = jax.tree.map(lambda x: x[1], states)
    alone, _ = jax.jit(step)(alone, make_batch(0))
    assert relative_difference(alone.params, jax.tree.map(lambda x: x[1], together.params)) <= 1e-5


def test_losses_balancers_take_one_backward_pass():
    def backward_dots(name):
        state, step = make(make_balancer(name))
        text = jax.jit(step).lower(state, make_batch(0)).compile().as_text()
        return text.count(" dot(")

    assert backward_dots("uw") == backward_dots("ew")


def test_what_makes_no_sense_is_refused():
    model = make_model()
    arguments = (model, TASKS, make_balancer("graddrop"), OPTIMIZER)
    with pytest.raises(ValueError, match="gives a direction"):
        make_train_step(*arguments, heads="weighted")
    with pytest.raises(ValueError, match="microbatches must be"):
        make_train_step(*arguments, microbatches=0)
    with pytest.raises(ValueError, match="level='parameters'"):
        make_train_step(model, TASKS, make_balancer("moco"), OPTIMIZER, level="features")
    with pytest.raises(ValueError, match="microbatches=1"):
        make_train_step(model, TASKS, make_balancer("sdmgrad"), OPTIMIZER, microbatches=2)
    state, step = make(make_balancer("ew"), microbatches=5)
    with pytest.raises(ValueError, match="5 equal microbatches"):
        step(state, make_batch(0))
    state, step = make(make_balancer("ew"), ema_decay=0.9)
    with pytest.raises(ValueError, match="ema=True"):
        step(state, make_batch(0))


def test_a_batch_or_model_that_lacks_a_task_is_refused():
    key, balancer, model = jax.random.key(0), make_balancer("ew"), make_model()
    batch = make_batch(0)
    del batch["labels"]["value"]
    with pytest.raises(ValueError, match="'labels'.*no value"):
        create_state(key, model, TASKS, balancer, OPTIMIZER, batch)
    fewer = make_model(tasks=TASKS[:2])
    with pytest.raises(ValueError, match="no output named other"):
        create_state(key, fewer, TASKS, balancer, OPTIMIZER, make_batch(0))
    with pytest.raises(ValueError, match="at least one"):
        create_state(key, model, (), balancer, optax.sgd(1.0), make_batch(0))


@pytest.mark.full
def test_one_task_trains_as_plain_descent_with_every_balancer_that_keeps_scale():
    tasks = TASKS[:1]
    model = make_model(tasks=tasks)
    state, step = make(make_balancer("ew"), model=model, tasks=tasks)
    expected = jax.jit(step)(state, make_batch(0))[0].params
    for name in ("mgda", "pcgrad", "graddrop", "dwa", "upgrad"):
        assert make_balancer(name).needs in Needs
        state, step = make(make_balancer(name), model=model, tasks=tasks)
        found = jax.jit(step)(state, make_batch(0))[0].params
        assert relative_difference(expected, found) <= 1e-5, name


@pytest.mark.slow
def test_keeping_only_the_gramian_of_40_tasks_takes_at_most_a_third_of_the_memory():
    tasks = [Classification(name=f"t{i}", num_classes=2) for i in range(40)]
    model = make_model(tasks=tasks, widths=(128,) * 16)
    batch = {
        "image": jnp.zeros((8, 4, 4, 1)),
        "labels": {task.name: jnp.zeros(8, jnp.int32) for task in tasks},
        "present": {task.name: jnp.ones(8, bool) for task in tasks},
    }
    parts = model, tasks, make_balancer("mgda"), OPTIMIZER
    state = create_state(jax.random.key(0), *parts, batch)

    def temporary_bytes(jacobian):
        step = jax.jit(make_train_step(*parts, jacobian=jacobian))
        return step.lower(state, batch).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes("gramian") <= temporary_bytes("rows") / 3
