"""The cause of updates that are not finite, in the message that ends training."""

import dataclasses
import math

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from support.own_models import Squared, squared_batch

import mtljax
from mtljax.balancing import BALANCERS, required_arguments
from mtljax.config import Data, Experiment
from mtljax.config.balancers import balancer_from_text
from mtljax.data import from_arrays
from mtljax.models.partition import mark_representation
from mtljax.tasks import Regression
from mtljax.training.stopping import Stopped, failure_cause


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changed(Squared):
    """A loss with another scale and origin."""

    factor: float = 1.0
    shift: float = 0.0

    def loss(self, output, label, present):
        total, count = super().loss(output, label, present)
        return self.factor * total + self.shift * count, count


class Net(nn.Module):
    @nn.compact
    def __call__(self, image, *, train):
        x = nn.relu(nn.Dense(8, name="trunk")(image.reshape(len(image), -1)))
        x = mark_representation(self, x)
        return {k: nn.Dense(1, name="task_" + k)(x)[:, 0] for k in "ab"}


def logs_of(balancer, **change):
    """Logs of the third step with a task a whose loss is changed."""
    tasks = Squared(name="b"), Changed(name="a", **change)
    parts = tasks, balancer_from_text(balancer), optax.adam(1e-3)
    batch = squared_batch()
    state = mtljax.create_state(jax.random.key(0), Net(), *parts, batch)
    step = jax.jit(mtljax.make_train_step(Net(), *parts))
    for _ in range(3):
        state, logs = step(state, batch)
    return jax.tree.map(float, dict(logs))


@pytest.mark.parametrize(
    ("balancer", "change", "message"),
    [
        ("forum", {"factor": 1e4}, "balancer forum gave the weights a nan, b nan at the losses"),
        ("auto_lambda", {"factor": 1e9}, "balancer auto_lambda gave the weights"),
        ("si", {"shift": -5.0}, "balancer si gave no finite direction at the negative loss of"),
        ("db_mtl", {"shift": -5.0}, "balancer db_mtl gave no finite direction at the"),
        ("ew", {"shift": float("nan")}, "the loss of task 'a' is nan (losses: a nan, b "),
        ("mgda", {"factor": 1e38}, "the loss of task 'a' is inf (losses: a inf, b "),
        ("si+cagrad:c=0.4", {"shift": -5.0}, "balancer si+cagrad:c=0.4 gave no finite direction"),
    ],
)
def test_the_cause_names_the_balancer_and_the_task(balancer, change, message):
    logs = logs_of(balancer, **change)
    assert logs["skipped"] == 1
    cause = failure_cause(balancer, logs["loss"], logs.get("weight"))
    assert message in cause
    assert "task 'a'" in cause
    assert "\n" not in cause


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"factor": 1e4}, {"factor": 1e8}, {"shift": -5.0}])
@pytest.mark.parametrize("name", sorted(BALANCERS))
def test_every_balancer_stays_finite_or_is_named_with_the_task(name, change):
    each = ",".join(f"{argument}=(1.0,2.0)" for argument in required_arguments(name))
    balancer = f"{name}:{each}" if each else name
    logs = logs_of(balancer, **change)
    if logs["skipped"]:
        cause = failure_cause(balancer, logs["loss"], logs.get("weight"))
        assert cause.startswith(f"balancer {balancer} gave")
        assert "task 'a'" in cause


def test_a_gradient_that_is_not_finite_is_told_from_weights():
    cause = failure_cause("cagrad:c=0.4", {"a": 1.0, "b": 9.0}, {"a": 0.5, "b": 0.5})
    assert cause.startswith("the gradient is not finite at the losses a 1, b 9, of which that of")
    cause = failure_cause("cagrad:c=0.4", {"a": -1.0, "b": 9.0}, {"a": math.inf, "b": 0.5})
    assert cause.startswith("balancer cagrad:c=0.4 gave no finite direction at the negative loss")


def test_training_ends_with_the_cause(tmp_path):
    random = np.random.default_rng(0)
    label = random.random(60, np.float32)
    tasks = tuple(Regression(name=n, center=0.0, scale=1.0) for n in "ab")
    experiment = Experiment(
        name="e",
        tasks=tasks,
        data=Data(source="arrays", batch_size=16),
        trunk="mlp:widths=(4,)",
        balancer="forum",
        steps=20,
        log_every=5,
        max_skipped=3,
    )
    source = from_arrays(random.random((60, 4, 4, 1), np.float32), {"a": label, "b": 1e4 * label})
    with pytest.raises(Stopped, match=r"not finite and were skipped: balancer forum .* task 'b'"):
        mtljax.train(experiment, tmp_path / "run", source=source, quiet=True)
