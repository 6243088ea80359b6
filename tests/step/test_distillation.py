"""Distillation: its terms against NumPy, and a student that has nothing left to learn."""

import functools
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.cli import SMALL
from support.problem import TASKS, make_balancer, make_batch, make_model

from mtljax.main import main
from mtljax.models import partition
from mtljax.models.multitask import without_pooling
from mtljax.step.distillation import ADAPTERS, DISTILLATIONS, Distillation, Teacher
from mtljax.step.objective import Inputs, Objective
from mtljax.step.state import create_state
from mtljax.step.train_step import make_train_step
from mtljax.tasks import Segmentation


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def soft_targets(output, target):
    """Hinton's, at temperature 3."""
    p, q = softmax(target / 3), softmax(output / 3)
    return 9 * (p * np.log(p / q)).sum(-1)


def squares(output, target):
    return (output - target) ** 2


def make(distill, *, model=None):
    """(fresh state, train step) of a student."""
    parts = model or make_model(), TASKS, make_balancer("ew"), optax.sgd(0.05)
    state = create_state(jax.random.key(0), *parts, make_batch(0), distill=distill)
    return state, make_train_step(*parts, distill=distill)


def losses(distill, state, batch, *, model=None, tasks=TASKS):
    """(sums, counts) of all tasks, the teachers' part included."""
    objective = Objective(model or make_model(), tasks, distillation=distill)
    objective = objective.with_constants({}, () if distill is None else distill.variables)
    params = partition(state.params)

    @jax.jit
    def run(batch):
        inputs = Inputs(state.model_state, batch, jax.random.key(0))
        sums, counts, *_ = objective.task_losses(params, inputs)
        return jnp.stack(sums), counts

    return run(batch)


def added(distill, state, batch, **options):
    """{task: what teachers add to its mean loss}."""
    (with_them, counts), (without, _) = (
        losses(d, state, batch, **options) for d in (distill, None)
    )
    return dict(zip((task.name for task in TASKS), (with_them - without) / counts, strict=True))


def teacher(seed, tasks, model=None, task_list=TASKS, image=None):
    """(a network of its own weights that teaches some tasks, its variables)."""
    model = model or make_model(widths=(8,))
    image = make_batch(0)["image"] if image is None else image
    variables = jax.device_get(dict(model.init(jax.random.key(seed), image, train=False)))
    variables.pop("perturbations", None)
    return Teacher(model, tasks), variables


def distillation(kind, *pairs):
    return Distillation(kind, *(tuple(part) for part in zip(*pairs, strict=True)))


def see(model, variables, image):
    """(outputs, features of the last stage) in evaluation mode."""
    outputs, told = model.apply(variables, image, train=False, mutable=["features"])
    return outputs, told["features"]


def test_soft_targets_are_added_to_the_loss_of_their_task_where_it_has_labels():
    pairs = teacher(1, ("digit",)), teacher(2, ("value",))
    distill = distillation(DISTILLATIONS["outputs"](weight=0.7, temperature=3.0), *pairs)
    state, batch = make(distill)[0], make_batch(4, missing=0.3)
    more = added(distill, state, batch)
    ours = see(make_model(), {"params": state.params, **state.model_state}, batch["image"])[0]
    for (told, variables), distance in zip(pairs, (soft_targets, squares), strict=True):
        (name,) = told.tasks
        theirs = see(told.model, variables, batch["image"])[0][name]
        far = distance(np.asarray(ours[name], np.float64), np.asarray(theirs, np.float64))
        expected = 0.7 * far[np.asarray(batch["present"][name])].mean()
        # A difference of losses, which are a few times as large.
        assert more[name] == pytest.approx(expected, rel=1e-4)
    assert more["other"] == 0


def test_a_student_with_its_teachers_weights_loses_nothing():
    model = make_model()
    _, own = teacher(3, ("digit",), model)
    distill = distillation(
        DISTILLATIONS["outputs"](), (Teacher(model, ("digit", "value", "other")), own)
    )
    results = []
    for wanted in (distill, None):
        state, step = make(wanted, model=model)
        results.append(jax.jit(step)(state.replace(params=own["params"]), make_batch(1)))
    (new, logs), (expected, wanted_logs) = results
    for name, loss in logs["loss"].items():
        assert float(loss) == pytest.approx(float(wanted_logs["loss"][name]), rel=1e-6)
    for a, b in zip(jax.tree.leaves(new.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_features_are_matched_by_a_linear_map_that_is_learned():
    pairs = teacher(1, ("digit", "value")), teacher(2, ("other",), make_model(widths=(8, 6)))
    distill = distillation(DISTILLATIONS["features"](weight=0.5), *pairs)
    state, step = make(distill)
    batch = make_batch(4, missing=0.3)
    more, (new, _) = added(distill, state, batch), jax.jit(step)(state, batch)
    ours = see(make_model(), {"params": state.params, **state.model_state}, batch["image"])[1]
    unit = lambda x: x / np.sqrt((x**2).sum(-1, keepdims=True) + 1e-6)
    for told, variables in pairs:
        theirs = see(told.model, variables, batch["image"])[1]
        for name in told.tasks:
            kernel = np.asarray(state.params[ADAPTERS][f"task_{name}"]["kernel"], np.float64)
            far = unit(np.asarray(ours[name], np.float64) @ kernel) - unit(np.asarray(theirs[name]))
            expected = 0.5 * (far**2).sum(-1)[np.asarray(batch["present"][name])].mean()
            assert more[name] == pytest.approx(expected, rel=1e-4)
            moved = new.params[ADAPTERS][f"task_{name}"]["kernel"] - kernel
            assert np.abs(moved).max() > 1e-5


@pytest.mark.full
@pytest.mark.parametrize("level", ["parameters", "features"])
def test_maps_are_matched_place_by_place_though_heads_average_them(level):
    cnn = functools.partial(make_model, "cnn", blocks=1)
    pair = teacher(1, ("digit",), cnn(widths=(4, 6)))
    distill = distillation(DISTILLATIONS["features"](), pair)
    parts = cnn(widths=(8,)), TASKS, make_balancer("mgda"), optax.sgd(0.1)
    batch = make_batch(1)
    state = create_state(jax.random.key(0), *parts, batch, distill=distill, level=level)
    adapters = state.params[ADAPTERS]["task_digit"]["kernel"]
    step = jax.jit(make_train_step(*parts, distill=distill, level=level))
    more = added(distill, state, batch, model=parts[0])["digit"]
    new, _ = step(state, batch)
    ours, theirs = (
        see(without_pooling(model), variables, batch["image"])[1]["digit"]
        for model, variables in (
            (parts[0], {"params": state.params, **state.model_state}),
            (pair[0].model, pair[1]),
        )
    )
    assert ours.ndim == theirs.ndim == 4
    unit = lambda x: x / np.sqrt((x**2).sum(-1, keepdims=True) + 1e-6)
    ours = jax.image.resize(ours @ adapters, theirs.shape, "linear")
    far = ((unit(np.asarray(ours)) - unit(np.asarray(theirs))) ** 2).sum(-1).mean((1, 2))
    assert more == pytest.approx(far[np.asarray(batch["present"]["digit"])].mean(), rel=1e-4)
    assert np.abs(new.params[ADAPTERS]["task_digit"]["kernel"] - adapters).max() > 1e-5


@pytest.mark.full
def test_parts_of_a_batch_add_up_to_the_whole_though_images_have_more_and_fewer_labels():
    tasks = (Segmentation(name="mask", num_classes=3, decoder="linear"),)
    model = make_model("cnn", tasks=tasks, widths=(4,), blocks=1, norm="none")
    draw = np.random.default_rng(0)
    label = draw.integers(0, 3, (16, 4, 4)).astype(np.int32)
    label[draw.random(label.shape) < draw.random((16, 1, 1))] = 255
    batch = {
        "image": jnp.asarray(draw.normal(size=(16, 4, 4, 1)), jnp.float32),
        "labels": {"mask": jnp.asarray(label)},
        "present": {"mask": jnp.asarray(draw.random(16) < 0.8)},
    }
    pair = teacher(1, ("mask",), model, image=batch["image"])
    distill = distillation(DISTILLATIONS["outputs"](), pair)
    variables = model.init(jax.random.key(0), batch["image"], train=False)
    state = SimpleNamespace(
        params=variables["params"], model_state={"constants": variables["constants"]}
    )
    run = lambda batch: losses(distill, state, batch, model=model, tasks=tasks)
    whole = run(batch)
    parts = [run(jax.tree.map(lambda x, i=i: x[i::2], batch)) for i in range(2)]
    np.testing.assert_allclose(whole[0], parts[0][0] + parts[1][0], rtol=1e-5)
    # And it is the mean over labeled pixels of how far their image is.
    plain = losses(None, state, batch, model=model, tasks=tasks)
    ours, theirs = (
        np.asarray(see(model, v, batch["image"])[0]["mask"], np.float64)
        for v in (variables, pair[1])
    )
    p, q = softmax(theirs / 2), softmax(ours / 2)
    far = 4 * (p * np.log(p / q)).sum(-1).mean((1, 2))
    count = (label != 255).sum((1, 2)) * np.asarray(batch["present"]["mask"])
    np.testing.assert_allclose(whole[0] - plain[0], [(count * far).sum()], rtol=1e-4)


class Flat(nn.Module):
    """A model that is not of this library."""

    @nn.compact
    def __call__(self, image, *, train):
        del train
        return {"digit": nn.Dense(3, name="task_digit")(image.reshape(len(image), -1))}


def test_what_cannot_be_compared_is_refused():
    flat = teacher(0, ("digit",), Flat())
    with pytest.raises(ValueError, match=r"cannot teach 'digit': its output has shape \(3,\)"):
        make(distillation(DISTILLATIONS["outputs"](), flat))
    with pytest.raises(ValueError, match="cannot teach 'digit'.*does not record features"):
        make(distillation(DISTILLATIONS["features"](), flat))
    with pytest.raises(ValueError, match="temperature must be > 0 and finite, not 0"):
        DISTILLATIONS["outputs"](temperature=0.0)
    maps = teacher(0, ("digit",), make_model("cnn", widths=(4,), blocks=1))
    with pytest.raises(ValueError, match="use trunks that both return maps"):
        make(distillation(DISTILLATIONS["features"](), maps))


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("dgit", "RUN"), "teachers: unknown task 'dgit'; did you mean 'digit'?"),
        (("digit", "nowhere"), "no run folder nowhere"),
        (("--distill", "features"), "distill 'features' needs teachers: add --teachers TASK RUN"),
        (("digit", "RUN", "--distill", "output"), "unknown distillation 'output'; did you mean"),
        (("digit", "RUN", "--distill", "outputs:weight=-1"), "weight must be > 0 and finite"),
    ],
)
def test_mistakes_are_told_in_one_line(flags, reason, trained_run, tmp_path, capsys):
    flags = [str(trained_run) if flag == "RUN" else flag for flag in flags]
    assert main([*SMALL, "--teachers", *flags, "--workdir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
