"""Every trunk, fusion, balancer and level together: it learns, and compiles once."""

import functools
import itertools

import jax
import jax.numpy as jnp
import optax
import pytest
from support.models import SMALL_FUSIONS, SMALL_TRUNKS
from support.problem import make_balancer
from support.tiers import full_except

from mtljax.balancing import BALANCERS, Needs
from mtljax.models import FUSIONS, TRUNKS, build
from mtljax.step.state import create_state
from mtljax.step.train_step import make_train_step
from mtljax.tasks import Classification, Regression

TASKS = (Classification(name="class", num_classes=3), Regression(name="value"))
OPTIMIZER = optax.adam(3e-3)
STEPS = 12
FITTING_TRUNK = {
    "mtan": "cnn",
    "pad_net": "cnn",
    "mti_net": "cnn",
    "invpt": "cnn",
    "task_prompt": "vit_ti",
}
"""What a fusion needs that does not take vectors."""
PLAIN_TRUNKS, PLAIN_FUSIONS = ("mlp", "cnn", "rnn"), ("none", "independent", "attention")
PLAIN_BALANCERS = ("ew", "fixed", "uw", "dwa", "mgda", "pcgrad", "graddrop")
LEVELS = ("parameters", "features")
README = (("mlp", "attention"), ("mlp", "mmoe"), ("cnn", "none"), ("cnn", "independent"))
"""Trunks and fusions in the README's tier: losses, both levels, and matrices."""


def has_its_own_way(balancer):
    """Whether it asks more of a step than losses or a Gramian, as most do."""
    special = balancer.lookahead or balancer.observe is not None or balancer.samples > 1
    return special or balancer.needs is Needs.JACOBIAN


def cases():
    """Each fusion at least once, the plain parts in pairs, and the balancers that have a way of
    their own through the step; all else is slow.
    """
    turn = itertools.cycle(itertools.product(PLAIN_BALANCERS, LEVELS))
    pairs = list(itertools.product(("mlp", "cnn"), PLAIN_FUSIONS))
    pairs += [(FITTING_TRUNK.get(fusion, "mlp"), fusion) for fusion in FUSIONS]
    pairs += [("rnn", "none"), ("resnet18", "none")]
    chosen = {(*pair, *next(turn)) for pair in dict.fromkeys(pairs)}
    own_way = {name for name in BALANCERS if has_its_own_way(make_balancer(name, len(TASKS)))}
    chosen |= {("mlp", "none", balancer, "parameters") for balancer in own_way}
    product = set(itertools.product(PLAIN_TRUNKS, FUSIONS, PLAIN_BALANCERS, LEVELS))
    product |= {(trunk, "none", "pcgrad", level) for trunk in TRUNKS for level in LEVELS}
    product |= set(itertools.product(("mlp",), ("none",), BALANCERS, LEVELS))
    readme = {case for case in chosen if case[:2] in README}
    return full_except(readme, sorted(chosen)) + [
        pytest.param(*case, marks=pytest.mark.slow) for case in sorted(product - chosen)
    ]


@functools.cache
def batch():
    image = jax.random.normal(jax.random.key(0), (12, 16, 16, 3))
    bright = image[:, :8].mean((1, 2, 3)) - image[:, 8:].mean((1, 2, 3))
    labels = {"class": (bright > 0) + (bright > 0.05).astype(jnp.int32), "value": 20 * bright}
    return {"image": image, "labels": labels, "present": {n: jnp.ones(12, bool) for n in labels}}


def refusal(make):
    """Why a combination is refused, None if it is not."""
    try:
        make()
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("trunk", "fusion", "balancer", "level"), cases())
def test_it_learns_and_compiles_once(trunk, fusion, balancer, level):
    stages = TRUNKS[trunk](**SMALL_TRUNKS[trunk])
    balancer = make_balancer(balancer, len(TASKS))
    made = []

    def make():
        model = build(stages, FUSIONS[fusion], TASKS, **SMALL_FUSIONS.get(fusion, {}))
        parts = model, TASKS, balancer, OPTIMIZER
        state = create_state(jax.random.key(1), *parts, batch(), level=level)
        made.append((state, make_train_step(*parts, level=level)))

    if (why := refusal(make)) is not None:
        assert "\n" not in why
        assert len(why) > 20
        assert level == "features" or trunk in PLAIN_TRUNKS or fusion == "task_prompt", why
        return
    state, step = made[0]
    step = jax.jit(step, donate_argnums=0)
    losses = []
    for _ in range(STEPS):
        state, logs = step(state, batch())
        losses.append({name: float(loss) for name, loss in logs["loss"].items()})
        assert int(logs["skipped"]) == 0
    assert step._cache_size() == 1
    assert min(losses[-1][name] / losses[0][name] for name in losses[0]) < 0.95
    assert sum(losses[-1].values()) < sum(losses[0].values())
