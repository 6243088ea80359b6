"""A small multi-task problem that tests of the step share."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtljax.balancing import BALANCERS, Balancer, required_arguments
from mtljax.models import FUSIONS, TRUNKS, build
from mtljax.step.state import create_state
from mtljax.step.train_step import make_train_step
from mtljax.tasks import Classification, Regression

TASKS = (
    Classification(name="digit", num_classes=4),
    Regression(name="value", center=1.5, scale=1.0),
    Regression(name="other", kind="huber"),
)
OPTIMIZER = optax.sgd(0.05)
WEIGHTS = (1.0, 0.5, 2.0)


def make_balancer(name: str, tasks: int = len(TASKS)) -> Balancer:
    """With what it cannot do without, and its defaults."""
    return BALANCERS[name](*(WEIGHTS[:tasks] for _ in required_arguments(name)))


CALM = {
    "sdmgrad": {"step_size": 0.5},
    "moml": {"learning_rate": 3e-5},
    "pbi": {"theta": 0.5},
    "go4align": {"step_size": 0.1},
}
"""Settings with which these balancers do not amplify rounding. With their defaults SDMGrad does so
by 20 long steps with momentum on its weights (from 1e-7 to 1e-2 in 20 steps), MOML by Adam's first
step on a gradient near 0, PBI by weights of both signs around 4, GO4Align by weights that grow as a
loss falls (from 1e-7 to 2e-5). Everything else about them is as ever."""


def calm(name: str, settings: Mapping[str, Mapping[str, float]] = CALM) -> Balancer:
    """The balancer as in `make_balancer`, with its entry in `settings` if it has one."""
    return BALANCERS[name](**settings[name]) if name in settings else make_balancer(name)


def make_batch(seed: int, size: int = 48, missing: float = 0.2) -> dict:
    """Images of 4x4 whose labels depend on them; each label is missing with that probability."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(size, 4, 4, 1)).astype(np.float32)
    quarters = image.reshape(size, 4, 4).mean(-1)
    return jax.tree.map(
        jnp.asarray,
        {
            "image": image,
            "labels": {
                "digit": quarters.argmax(-1).astype(np.int32),
                "value": quarters.argmax(-1).astype(np.float32),
                "other": quarters.sum(-1),
            },
            "present": {task.name: rng.random(size) >= missing for task in TASKS},
        },
    )


def make_model(trunk: str = "mlp", fusion: str = "none", tasks=TASKS, remat=False, **arguments):
    arguments = arguments or {"widths": (16,)}
    return build(TRUNKS[trunk](**arguments), FUSIONS[fusion], tasks, std=0.8, remat=remat)


def make(
    balancer: Balancer, *, model=None, tasks=TASKS, seed=0, ema=False, level="parameters", **step
):
    """(fresh state, train step)."""
    model = model or make_model(tasks=tasks)
    state = create_state(
        jax.random.key(seed),
        model,
        tasks,
        balancer,
        OPTIMIZER,
        make_batch(0),
        level=level,
        ema=ema,
    )
    return state, make_train_step(model, tasks, balancer, OPTIMIZER, level=level, **step)


def relative_difference(a, b) -> float:
    """Largest difference of two trees of arrays, relative to the largest number of each leaf."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(
        float(np.abs(np.asarray(x) - np.asarray(y)).max() / (np.abs(np.asarray(x)).max() + 1e-8))
        for x, y in pairs
    )
