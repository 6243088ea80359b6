"""Products outside of the model are in full float32 on accelerators, too.

CPUs multiply in float32 anyway, so the precision that each product asks for is read in the jaxpr.
"""

import flax.linen as nn
import jax
import optax
import pytest
from support.own_models import Squared, squared_batch
from support.problem import make_balancer
from support.tiers import full_except

from mtljax import create_state, make_train_step
from mtljax.balancing import BALANCERS
from mtljax.balancing.base import Needs
from mtljax.models.partition import TASK_PREFIX, mark_representation

HIGHEST = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)


class Elementwise(nn.Module):
    """Two tasks without any matrix product."""

    @nn.compact
    def __call__(self, image, train):
        del train
        scale = self.param("scale", nn.initializers.ones, image.shape[1:])
        shift = self.param("shift", nn.initializers.zeros, (3,))
        x = mark_representation(self, (image * scale).mean((1, 2)) + shift.sum())
        heads = {name: nn.BatchNorm(True, name=TASK_PREFIX + name) for name in "ab"}
        return {name: head(x)[:, 0] for name, head in heads.items()}


def products(jaxpr):
    """Yields the precision of every matrix product, at any depth."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for value in jax.tree.leaves(equation.params):
            if hasattr(getattr(value, "jaxpr", value), "eqns"):
                yield from products(value)


@pytest.mark.parametrize("level", ["parameters", "features"])
@pytest.mark.parametrize("name", full_except(["pcgrad", "mgda", "modo"], sorted(BALANCERS)))
def test_every_product_of_a_step_outside_of_the_model_is_in_full_precision(name, level):
    model, balancer = Elementwise(), make_balancer(name, 2)
    if level == "features" and balancer.parameters_only:
        pytest.skip("this balancer has no gradients of the representation")
    parts = model, [Squared(name="a"), Squared(name="b")], balancer, optax.adam(1e-3)
    batch = squared_batch(8)
    state = create_state(jax.random.key(0), *parts, batch, level=level)
    step = make_train_step(*parts, level=level)
    precisions = list(products(jax.make_jaxpr(step)(state, batch)))
    assert [precision for precision in precisions if precision != HIGHEST] == []
    if balancer.needs is Needs.GRAMIAN:
        assert precisions  # or else nothing was tested
