"""`create_state` refuses parameters that are task-specific by name only."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.own_models import Squared, squared_batch

import mtljax
from mtljax.balancing import cagrad, ew
from mtljax.models import FUSIONS, TRUNKS, build
from mtljax.step.ownership import check_ownership
from mtljax.tasks import Classification, Regression, Segmentation

TASKS = Squared(name="a"), Squared(name="b")


def vector(image):
    return image.reshape(len(image), -1)


class Neck(nn.Module):
    """Two heads on a trunk and a layer with some name, which may be a parameter."""

    name_of_neck: str
    is_parameter: bool = False

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.relu(nn.Dense(8, name="trunk")(vector(image)))
        if self.is_parameter:
            x = x * self.param(self.name_of_neck, nn.initializers.ones, (8,))
        else:
            x = nn.relu(nn.Dense(8, name=self.name_of_neck)(x))
        return {k: nn.Dense(1, name="task_" + k)(x)[:, 0] for k in "ab"}


class Cascade(nn.Module):
    """The head of b reads the head of a."""

    stop: bool = False
    name_of_head: str = "task_a"

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.relu(nn.Dense(8, name="trunk")(vector(image)))
        a = nn.Dense(4, name=self.name_of_head)(x)
        read = jax.lax.stop_gradient(a) if self.stop else a
        b = nn.Dense(1, name="task_b")(jnp.concatenate([x, read], 1))[:, 0]
        return {"a": a[:, 0], "b": b}


class InLoop(nn.Module):
    """The head of a is read by both tasks, inside a scan and under jit and remat."""

    @nn.compact
    def __call__(self, image, *, train):
        head = nn.Dense(8, name="task_a")
        x = nn.Dense(8, name="trunk")(vector(image))
        first = head(x)
        kernel = self.variables["params"]["task_a"]["kernel"]
        body = jax.checkpoint(lambda x, _: (jax.nn.relu(x @ kernel), None))
        looped, _ = jax.jit(lambda x: jax.lax.scan(body, x, length=2))(x)
        return {"a": first[:, 0], "b": nn.Dense(1, name="task_b")(looped)[:, 0]}


def create(model, balancer=None, tasks=TASKS):
    parts = tasks, balancer or ew(), optax.sgd(1.0)
    return mtljax.create_state(jax.random.key(0), model, *parts, squared_batch())


@pytest.mark.parametrize("name", ["task_neck", "task_a_neck", "task_", "task_A"])
@pytest.mark.parametrize("is_parameter", [False, True])
def test_a_shared_module_with_the_name_of_a_head_is_refused(name, is_parameter):
    kind = "parameter" if is_parameter else "module"
    with pytest.raises(ValueError, match=rf"{kind} '{name}' belongs to no task \(a, b\)"):
        create(Neck(name, is_parameter))


def test_a_shared_module_with_the_name_of_a_task_is_refused():
    class Shared(nn.Module):
        @nn.compact
        def __call__(self, image, *, train):
            x = nn.Dense(8, name="task_a")(vector(image))
            return {
                "a": nn.Dense(1, name="top_a")(x)[:, 0],
                "b": nn.Dense(1, name="task_b")(x)[:, 0],
            }

    with pytest.raises(ValueError, match="output of task 'b' depends on module 'task_a'"):
        create(Shared())


@pytest.mark.parametrize("model", [Cascade(), InLoop()])
def test_a_head_that_reads_another_head_is_refused(model):
    with pytest.raises(ValueError, match=r"'b' depends on module 'task_a'.*stop_gradient"):
        create(model)


class Head(nn.Module):
    """A head with a layer of its own or of another module, and batch statistics."""

    layer: nn.Module | None = None

    @nn.compact
    def __call__(self, x, train):
        x = (self.layer or nn.Dense(4))(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(1)(x)[:, 0]


class WithStatistics(nn.Module):
    """Heads with batch statistics on a trunk with batch statistics; one layer may be in both."""

    is_shared: bool = False

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(vector(image)))
        layer = nn.Dense(4, parent=None) if self.is_shared else None
        return {k: Head(layer, name="task_" + k)(x, train) for k in "ab"}


def test_heads_with_batch_statistics_are_accepted():
    create(WithStatistics())


def test_a_layer_in_two_heads_is_refused():
    with pytest.raises(ValueError, match="output of task 'b' depends on module 'task_a'"):
        create(WithStatistics(is_shared=True))


@pytest.mark.parametrize("model", [Neck("neck"), Cascade(stop=True), Cascade(name_of_head="both")])
def test_the_fixes_that_the_message_names_are_accepted(model):
    create(model, cagrad())


def test_a_renamed_cascade_gets_the_gradient_of_both_losses():
    batch = squared_batch()
    batch["present"]["a"] = np.arange(len(batch["image"])) < 8
    model, balancer, optimizer = Cascade(name_of_head="both"), ew(), optax.sgd(1.0)
    state = create(model)
    step = jax.jit(mtljax.make_train_step(model, TASKS, balancer, optimizer))

    def total(params):
        outputs = model.apply({"params": params}, batch["image"], train=True)
        squares = lambda k: batch["present"][k] * (outputs[k] - batch["labels"][k]) ** 2
        return sum(squares(k).sum() / batch["present"][k].sum() for k in "ab")

    expected = jax.grad(total)(state.params)["both"]["kernel"]
    new, _ = step(state, batch)
    moved = state.params["both"]["kernel"] - new.params["both"]["kernel"]
    np.testing.assert_allclose(moved, expected, atol=1e-6)


@pytest.mark.parametrize("balancer", [ew(), cagrad()])
def test_the_head_of_a_task_that_is_not_trained_stays(balancer):
    model, tasks, optimizer = Neck("neck"), TASKS[:1], optax.sgd(1.0)
    state = create(model, balancer, tasks)
    batch = squared_batch()
    new, _ = mtljax.make_train_step(model, tasks, balancer, optimizer)(state, batch)
    np.testing.assert_array_equal(new.params["task_b"]["kernel"], state.params["task_b"]["kernel"])
    assert (new.params["task_a"]["kernel"] != state.params["task_a"]["kernel"]).any()


def test_an_output_that_is_missing_is_named():
    with pytest.raises(ValueError, match=r"no output named c; it has a, b"):
        check(Neck("neck"), (*TASKS, Squared(name="c")))


def check(model, tasks, shape=(2, 16, 16, 3)):
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    init = lambda x: model.init(jax.random.key(0), x, train=False)
    check_ownership(model, tasks, jax.eval_shape(init, image), image)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_is_accepted(fusion):
    trunk = TRUNKS["vit_ti"]() if fusion == "task_prompt" else TRUNKS["cnn"](widths=(4, 4, 8))
    tasks = (
        Classification(name="a", num_classes=3),
        Segmentation(name="a_neck", num_classes=3),
        Regression(name="taskc", center=0.0, scale=1.0),
    )
    check(build(trunk, FUSIONS[fusion], tasks), tasks, (2, 32, 32, 3))


def test_a_model_is_traced_once_unless_heads_are_coupled(monkeypatch):
    traces, original = [], nn.Module.apply
    count = lambda *args, **kwargs: traces.append(0) or original(*args, **kwargs)
    monkeypatch.setattr(nn.Module, "apply", count)
    check(Neck("neck"), TASKS)
    assert len(traces) == 1
    check(Cascade(stop=True), TASKS)
    assert len(traces) == 3


@pytest.mark.parametrize("fusion", ["independent", "cross_stitch", "ple"])
def test_a_task_name_that_makes_shared_modules_look_specific_is_refused(fusion):
    tasks = tuple(Regression(name=name, center=0.0, scale=1.0) for name in ("task_1", "other"))
    model = build(TRUNKS["cnn"](widths=(4, 4, 8)), FUSIONS[fusion], tasks)
    with pytest.raises(ValueError, match=r"task 'task_1': .* rename the task, for example '1'"):
        check(model, tasks)
    model = build(TRUNKS["cnn"](widths=(4, 4, 8)), FUSIONS["none"], tasks)
    check(model, tasks)


class Unresolved(Squared):
    """A task with a field that is derived from the training labels."""

    is_resolved = False


def test_a_task_that_is_not_resolved_is_refused():
    with pytest.raises(ValueError, match="task 'b' has fields that are derived from the training"):
        create(Neck("neck"), tasks=(Squared(name="a"), Unresolved(name="b")))


def test_the_arrays_of_a_batch_must_have_one_length():
    batch = squared_batch()
    batch["labels"]["b"] = batch["labels"]["b"][:-1]
    with pytest.raises(ValueError, match=r"different lengths: image 32, labels/a 32, labels/b 31"):
        mtljax.create_state(jax.random.key(0), Neck("neck"), TASKS, ew(), optax.sgd(1.0), batch)
