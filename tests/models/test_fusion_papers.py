"""What each fusion's paper claims about its structure."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.models import (
    NAMES,
    init,
    quick_jit,
    shapes,
    small_fusion,
    small_image,
    small_trunk,
)
from support.tiers import full_except

from mtljax.models.fusion.base import Gather
from mtljax.models.fusion.dselect_k import select, smooth_step
from mtljax.models.trunks.base import Carry, weighted_sum

TASKS = NAMES[:2]


@functools.cache
def sown(fusion, **options):
    """Path -> what a fusion shows of its inside, in evaluation mode."""
    module = small_fusion(fusion, tasks=TASKS, **options)
    variables = init(module, small_image(), train=True)
    # So small that no sigmoid rounds to 1, and with positive variances.
    variables = jax.tree.map(lambda x: x / 3, variables)
    if "batch_stats" in variables:
        variables["batch_stats"] = jax.tree.map(jnp.abs, variables["batch_stats"])
    run = lambda v, x: module.apply(v, x, train=False, mutable=["intermediates"])[1]
    values = quick_jit(run)(variables, small_image())["intermediates"]
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(values)}


def alone(module, params, task):
    """The features of a task's trunk by itself."""
    x = small_image()
    for i, stage in enumerate(module.trunk):
        x = stage.apply({"params": params[f"{task}_trunk_{i}"]}, x, False)
    return x


def test_cross_stitch_at_the_identity_equals_independent_trunks():
    module = small_fusion("cross_stitch", same=1.0, tasks=NAMES)
    variables = init(module, small_image(), train=False)
    params = variables["params"]
    for path in [p for p in params if "unit" in p or p.startswith("task_")]:
        own = [name for name in NAMES if name in path][0]
        params[path]["row"] = jnp.eye(len(NAMES))[NAMES.index(own)]
    fused = module.apply(variables, small_image(), train=False)
    for task in NAMES:
        np.testing.assert_allclose(fused[task][-1], alone(module, params, task), rtol=1e-6)


@pytest.mark.parametrize("fusion", full_except(["nddr"], ["cross_stitch", "nddr"]))
def test_trunks_that_exchange_start_with_mostly_their_own_features(fusion):
    module = small_fusion(fusion, "mlp", same=0.8)
    keys = {"params": jax.random.key(0)}
    params = quick_jit(lambda x: module.init(keys, x, train=False))(small_image())["params"]
    leaf = jax.tree.leaves({k: v for k, v in params["task_edge"].items() if "Norm" not in k})[0]
    expected = jnp.asarray([0.1, 0.8, 0.1])
    if fusion == "nddr":
        expected = jnp.concatenate([weight * jnp.eye(8) for weight in expected])
    np.testing.assert_allclose(leaf, expected, atol=1e-6)


@pytest.mark.parametrize(
    "fusion", full_except(["mtan"], ["mtan", "pad_net", "mti_net", "task_prompt"])
)
def test_attention_masks_lie_between_zero_and_one(fusion):
    masks = [m for path, m in sown(fusion).items() if "share" not in path]
    assert len(masks) >= len(TASKS)
    for mask in masks:
        assert ((mask > 0) & (mask < 1)).all()
        assert mask.std() > 0


@pytest.mark.parametrize(
    ("fusion", "word", "axis", "count"),
    [
        ("mmoe", "gate", -1, 2),
        ("dselect_k", "gate", -1, 2),
        ("cgc", "gate", -1, 2),
        ("ple", "gate", -1, 5),
        ("mti_net", "share", -2, 1),
        ("invpt", "attention", -1, 2),
        ("attention", "attention_weights", -1, 2),
    ],
)
def test_shares_are_positive_and_sum_to_one(fusion, word, axis, count):
    found = [value for path, value in sown(fusion).items() if f"'{word}'" in path]
    assert len(found) == count
    for value in found:
        assert (value >= 0).all()
        np.testing.assert_allclose(value.sum(axis), 1, atol=1e-5)


def test_gates_depend_on_the_example():
    for fusion, options in (("mmoe", {}), ("dselect_k", {"per_example": True})):
        for gate in sown(fusion, **options).values():
            assert (gate[0] != gate[1]).any()


def test_the_shared_gate_of_ple_reads_all_experts_and_a_tasks_gate_only_its_own():
    module = small_fusion("ple", tasks=TASKS, shared_experts=3, task_experts=2)
    params = shapes(module, small_image(), train=True)[1]["params"]
    width = lambda gate: gate["Dense_0"]["kernel"].shape[-1]
    assert width(params["shared_gate_0"]) == 3 + 2 * len(TASKS)
    for task in TASKS:
        assert width(params[f"task_{task}"]["enter"]) == 3 + 2
        assert width(params[f"task_{task}"]["gate"]) == 3 + 2


def test_ple_with_one_level_is_cgc():
    found = shapes(small_fusion("ple", levels=1), small_image(), train=True)
    assert found == shapes(small_fusion("cgc"), small_image(), train=True)


@pytest.mark.parametrize("selectors", [1, 2, 3])
def test_dselect_k_uses_at_most_k_experts_once_its_steps_have_converged(selectors):
    draw = np.random.default_rng(selectors)
    for _ in range(20):
        code = jnp.asarray(draw.choice([-1, 1], (selectors, 3)) * draw.uniform(0.5, 2, (1, 3)))
        chosen = select(code, 8, gamma=1.0)
        assert set(np.unique(chosen)) == {0.0, 1.0}
        np.testing.assert_array_equal(chosen.sum(-1), 1)
        weights = jnp.full(selectors, 1 / selectors) @ chosen
        assert 1 <= (weights > 0).sum() <= selectors


def test_dselect_k_shares_sum_to_one_while_its_steps_are_open():
    code = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (50, 3)))
    shares = select(code, 8, gamma=1.0)
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-6)


def test_the_smooth_step_is_a_step_with_slopes_that_meet():
    gamma = 0.5
    step = lambda t: smooth_step(t, gamma)
    np.testing.assert_allclose(step(jnp.asarray([-9, -0.25, 0, 0.25, 9])), [0, 0, 0.5, 1, 1])
    slope = jax.vmap(jax.grad(step))(jnp.asarray([-0.2499, 0.0, 0.2499]))
    np.testing.assert_allclose(slope, [0, 1.5 / gamma, 0], atol=5e-3)


def test_learning_to_branch_is_a_discrete_tree_outside_training():
    module = small_fusion("ltb", tasks=NAMES)
    variables = init(module, small_image(), train=True)
    params = variables["params"]
    fused = module.apply(variables, small_image(), train=False)
    leaf = int(params["task_edge"]["logits"][0].argmax())
    parent = int(params["choice_2"]["logits"][leaf].argmax())
    x, path = small_image(), ["root", f"node_1_{parent}", f"node_2_{leaf}"]
    features = []
    for stage, name in zip(module.trunk, path, strict=True):
        x = stage.apply({"params": params[name]}, x, False)
        features.append(x)
    for found, expected in zip(fused["edge"], features[-2:], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_learning_to_branch_draws_in_training():
    module = small_fusion("ltb", tasks=TASKS)
    variables = init(module, small_image(), train=True)
    run = quick_jit(
        lambda key: module.apply(variables, small_image(), train=True, rngs={"dropout": key})
    )
    first, again, other = (run(jax.random.key(seed))["edge"][-1] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_pad_net_with_a_shut_gate_keeps_the_tasks_own_features():
    module = small_fusion("pad_net", tasks=TASKS, norm="none")
    variables = init(module, small_image(), train=False)
    specific = variables["params"]["task_edge"]
    run = quick_jit(lambda v: module.apply(v, small_image(), train=False)["edge"][-1])
    open_gate = run(variables)
    specific["look"] = jax.tree.map(jnp.zeros_like, specific["look"])
    specific["look"]["bias"] -= 100
    shut = run(variables)
    assert (shut >= 0).all()
    assert (open_gate != shut).any()
    specific["messages"] = jax.tree.map(jnp.zeros_like, specific["messages"])
    np.testing.assert_allclose(run(variables), shut, atol=1e-6)


@pytest.mark.full
def test_the_coarsest_gathered_map_tells_of_the_finest():
    maps = [jnp.ones((1, 8, 8, 2)), jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 2, 2, 2))]
    variables = jax.tree.map(jnp.ones_like, Gather().init(jax.random.key(0), maps))
    gathered = Gather().apply(variables, maps)
    assert [x.shape for x in gathered] == [x.shape for x in maps]
    # Twice through a 2x2 kernel of ones with bias one: (1 + 1) + 1 = 3, then 7.
    np.testing.assert_allclose(gathered[-1], 7, atol=1e-5)


def test_a_mixture_takes_what_travels_beside_the_features_along():
    parts = [Carry(jnp.full((2, 3), value), (jnp.full((2, 4, 5), -value),)) for value in (1.0, 3.0)]
    same = weighted_sum(jnp.asarray([0.5, 0.5]), parts)
    assert (same.features == 2).all()
    assert (same.rest[0] == -2).all()
    each = weighted_sum(jnp.asarray([[1.0, 0.0], [0.0, 1.0]]), parts)
    np.testing.assert_array_equal(each.features[:, 0], [1, 3])


def test_the_prompts_of_a_task_are_tokens_of_the_shared_transformer():
    module = small_fusion("task_prompt", tasks=TASKS, prompts=3)
    params = shapes(module, small_image(), train=True)[1]["params"]
    plain = shapes(small_fusion("none", "vit_ti"), small_image(), train=True)[1]["params"]
    assert params["prompts"].shape == (1, 3 * len(TASKS), 8)
    assert {k: v for k, v in params.items() if k.startswith("trunk")} == plain
    assert len(small_trunk("vit_ti")) == len(plain)
