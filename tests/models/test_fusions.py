"""What holds for every fusion: shapes, gradients, who owns which parameter, where it is cut."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from support.models import (
    FITTING_TRUNK,
    NAMES,
    SMALL_TRUNKS,
    ProbeNet,
    init,
    look,
    losses_of,
    quick_jit,
    shapes,
    small_fusion,
    small_image,
    small_trunk,
)
from support.tiers import full_except

import mtljax.models.fusion.base
from mtljax.models import FUSIONS, TRUNKS, build, partition, task_of
from mtljax.models.multitask import without_pooling
from mtljax.models.partition import PERTURBATIONS
from mtljax.tasks import Classification, Regression, Segmentation

every_fusion = pytest.mark.parametrize("fusion", FUSIONS)
VECTORS = ("mlp", "rnn")
GROWING = ("segnet",)


def refused(fusion, trunk):
    """Whether the combination makes no sense."""
    if fusion == "task_prompt":
        return not trunk.startswith("vit")
    if fusion in ("mti_net", "invpt"):
        return trunk in VECTORS + GROWING
    return fusion in FITTING_TRUNK and trunk in VECTORS


@every_fusion
def test_every_parameter_of_a_fusion_gets_a_gradient(fusion):
    seen = look(fusion)
    for path, rows in {**seen.shared, **seen.specific}.items():
        assert jnp.isfinite(rows).all(), path
        assert (rows != 0).any(), path


@every_fusion
def test_a_task_specific_parameter_has_a_gradient_from_its_own_task_only(fusion):
    seen = look(fusion)
    assert {task_of(path) for path in seen.specific} == set(seen.tasks)
    for path, rows in seen.specific.items():
        others = np.delete(rows, seen.tasks.index(task_of(path)), 0)
        assert (others == 0).all(), path


@every_fusion
def test_what_reaches_one_loss_only_is_task_specific(fusion):
    for path, rows in look(fusion).shared.items():
        reached = (np.asarray(rows).reshape(len(rows), -1) != 0).any(1)
        assert reached.sum() > 1, path


@every_fusion
def test_the_representation_cuts_all_losses_off_the_shared_parameters(fusion, monkeypatch):
    marked = []

    def cut(module, features):
        marked.append(module)
        return jax.lax.stop_gradient(features)

    monkeypatch.setattr(mtljax.models.fusion.base, "mark_representation", cut)
    model = ProbeNet(small_fusion(fusion, tasks=NAMES[:2]))
    variables = init(model, small_image())
    total = lambda *params: losses_of(model, variables)(*params).sum()
    marked.clear()
    params = partition(variables["params"])
    jaxpr = jax.make_jaxpr(jax.grad(total))(*params)
    if fusion == "mtan":
        assert not marked
        return
    assert len(marked) == 1
    # Where no path is left, the gradient is a constant zero: it does not depend on any input.
    gradients = dict(zip(sorted(params[0]), reachable(jaxpr.jaxpr), strict=True))
    assert not any(gradients.values()), gradients


def reachable(jaxpr):
    """For each output, whether it depends on any input or drawn number."""
    depends = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        if any(not hasattr(x, "val") and x in depends for x in equation.invars):
            depends.update(equation.outvars)
    return [not hasattr(x, "val") and x in depends for x in jaxpr.outvars]


@pytest.mark.parametrize(
    ("fusion", "trunk"),
    full_except(
        [(fusion, "cnn" if fusion in FITTING_TRUNK else "mlp") for fusion in FUSIONS],
        itertools.product(FUSIONS, ["mlp", "rnn", "cnn", "segnet", "vit_ti"]),
    ),
)
def test_a_fusion_takes_a_trunk_or_says_in_one_line_why_not(fusion, trunk):
    module = small_fusion(fusion, trunk, taps=1)
    if fusion in ("mti_net", "invpt"):
        module = module.clone(scales=min(2, len(module.trunk)))
    if fusion == "ple":
        module = module.clone(levels=min(2, len(module.trunk)))
    image = small_image()[:, :3] if trunk == "rnn" else small_image()  # it is unrolled over rows
    few = len(module.trunk) == 1 and fusion == "ltb"
    if refused(fusion, trunk) or few:
        with pytest.raises(ValueError, match="take ") as caught:
            shapes(module, image, train=True)
        assert "\n" not in str(caught.value)
        return
    outputs, variables = shapes(module, image, train=True)
    assert set(outputs) == set(NAMES)
    assert len({tuple(x.shape for x in features) for features in outputs.values()}) == 1
    evaluated = jax.eval_shape(lambda v, x: module.apply(v, x, train=False), variables, image)
    assert jax.tree.map(jnp.shape, evaluated) == jax.tree.map(jnp.shape, outputs)


@every_fusion
def test_one_task_and_one_stage_are_enough(fusion):
    outputs, _ = shapes(small_fusion(fusion, tasks=("only",), taps=1), small_image(), train=True)
    assert len(outputs["only"]) == 1


@every_fusion
def test_remat_has_the_same_parameters(fusion):
    plain = shapes(small_fusion(fusion), small_image(), train=True)[1]["params"]
    remat = shapes(small_fusion(fusion, remat=True), small_image(), train=True)[1]["params"]
    assert jax.tree.structure(plain) == jax.tree.structure(remat)


def test_every_trunk_has_a_small_form():
    assert set(SMALL_TRUNKS) == set(TRUNKS)


@pytest.mark.parametrize("fusion", ["mti_net", "invpt"])
def test_more_scales_than_stages_are_refused(fusion):
    with pytest.raises(ValueError, match="choose 1 to 2"):
        shapes(small_fusion(fusion, scales=4), small_image(), train=True)


@pytest.mark.parametrize(
    ("fusion", "options", "match"),
    [
        ("dselect_k", {"experts": 3}, "power of two"),
        ("mmoe", {"expert_stages": 9}, "from 1 to 3"),
        ("ple", {"levels": 0}, "from 1 to 3"),
        ("invpt", {"heads": 3}, "does not divide"),
    ],
)
def test_an_impossible_argument_is_refused(fusion, options, match):
    with pytest.raises(ValueError, match=match):
        shapes(small_fusion(fusion, **options), small_image(), train=True)


def modules(params):
    """Path of every module that has parameters below it, one or two deep -> their shapes."""
    found = {}
    for path, leaf in flatten_dict(params).items():
        for depth in (1, 2):
            below = found.setdefault("/".join(path[:depth]), {})
            below["/".join(path[depth:])] = leaf.shape
    return found


@every_fusion
def test_a_fusion_knows_which_of_its_modules_are_copies_of_which_stage(fusion):
    trunk = FITTING_TRUNK.get(fusion, "mlp")
    plain = shapes(small_fusion("none", trunk), small_image(), train=False)[1]["params"]
    stages = [modules(plain)[f"trunk_{i}"] for i in range(len(plain))]
    made = small_fusion(fusion)
    own = modules(shapes(made, small_image(), train=False)[1]["params"])
    told = {module: made.stage_of(module) for module in own}
    assert {stage for stage in told.values() if stage is not None} == set(range(len(stages)))
    for module, leaves in own.items():
        found = stages.index(leaves) if leaves in stages else None
        assert told[module] == found, module


@pytest.mark.parametrize(
    ("fusion", "trunk"),
    [("none", "cnn"), ("none", "mlp"), ("none", "vit_ti"), ("independent", "cnn")],
)
def test_heads_that_average_over_space_share_it_and_a_vector_is_represented(fusion, trunk):
    tasks = [Classification(name="class", num_classes=3), Regression(name="size")]
    model = build(small_trunk(trunk), FUSIONS[fusion], tasks)
    image, variables = small_image(), init(model, small_image(), train=False)
    (marked,) = shapes(model, image, train=False)[1][PERTURBATIONS]["fusion"]["marked"]
    assert marked.ndim == 2

    def outputs(model):
        return quick_jit(lambda v: model.apply(v, image, train=False))(variables)

    found, expected = outputs(model), outputs(without_pooling(model))
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)


def test_one_head_that_reads_maps_is_enough_for_maps_to_be_represented():
    tasks = [Classification(name="class", num_classes=3), Segmentation(name="mask", num_classes=2)]
    model = build(small_trunk("cnn"), FUSIONS["none"], tasks)
    marked = shapes(model, small_image(), train=False)[1][PERTURBATIONS]["fusion"]["marked"]
    assert all(x.ndim == 4 for x in marked)
