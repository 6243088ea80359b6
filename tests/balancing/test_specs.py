"""Balancers carry the call that created them, and can be created again from it."""

import inspect

import jax
import jax.numpy as jnp
import pytest
from support.balancing import made

from mtljax import balancing
from mtljax.balancing import (
    BALANCERS,
    Balancer,
    Needs,
    aggregate,
    cagrad,
    cr_mogm,
    fixed,
    from_spec,
    mgda,
)
from mtljax.config.balancers import balancer_from_text
from mtljax.utils.registry import choose
from mtljax.utils.spec import to_text


def plain(spec):
    """A spec with the arrays and lists in it as tuples, and inner specs as text."""
    return spec.name, {
        key: to_text(value) if hasattr(value, "arguments") else value
        for key, value in spec.arguments.items()
    }


@pytest.mark.parametrize("name", sorted(BALANCERS))
def test_every_balancer_is_recorded_and_created_again(name):
    assert getattr(balancing, name) is BALANCERS[name]
    assert name in balancing.__all__
    balancer = made(name, 2)
    assert balancer.spec.name == name
    for again in (
        from_spec(balancer.spec),
        balancer_from_text(to_text(balancer.spec)),
    ):
        assert plain(again.spec) == plain(balancer.spec)
        assert (again.needs, again.heads) == (balancer.needs, balancer.heads)


@pytest.mark.parametrize("name", sorted(BALANCERS))
def test_every_argument_is_recorded(name):
    given = {
        key: (1.0, 2.0) if parameter.default is parameter.empty else parameter.default
        for key, parameter in inspect.signature(BALANCERS[name]).parameters.items()
    }
    assert BALANCERS[name](**given).spec.arguments == given
    assert BALANCERS[name](*given.values()).spec.arguments == given
    text = to_text(BALANCERS[name](**given).spec)
    assert choose("balancer", text, BALANCERS).build().spec.arguments == given


def test_balancers_inside_balancers_are_recorded():
    outer = cr_mogm(cagrad(c=0.25, rescale=1), smoothing=0.5)
    text = "cagrad:c=0.25,rescale=1@cr_mogm:smoothing=0.5"
    assert to_text(outer.spec) == text
    jacobian = jax.random.normal(jax.random.key(0), (3, 8))
    former = "cr_mogm:balancer='cagrad:c=0.25,rescale=1',smoothing=0.5"
    for again in (from_spec(outer.spec), balancer_from_text(text), balancer_from_text(former)):
        assert (aggregate(again, jacobian) == aggregate(outer, jacobian)).all()
    assert (aggregate(cr_mogm(cagrad()), jacobian) != aggregate(outer, jacobian)).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "unknown balancer 'nothing'; available: ew, "),
        ("cagrad:d=1", "balancer 'cagrad:d=1' cannot be created: .*'d'"),
        ("cagrad:c=", "balancer 'cagrad:c=' cannot be created: invalid syntax"),
        ("cagrad:c=-1", "balancer 'cagrad:c=-1' cannot be created: needs c >= 0"),
        ("mgda:normalize=l3", "'none', 'l2', 'loss' or 'loss\\+', not 'l3'"),
    ],
)
def test_text_of_an_inner_balancer_is_checked(text, message):
    with pytest.raises(ValueError, match=message):
        cr_mogm(text)


def test_a_balancer_without_spec_leaves_none_around_it():
    mine = Balancer(init=mgda().init, combine=mgda().combine, needs=Needs.GRAMIAN)
    assert mine.spec is None
    assert cr_mogm(mine).spec is None


def test_specs_do_not_change_what_is_equal():
    one = fixed(weights=[1.0, 2.0])
    assert hash(one) == hash(one)
    assert one.spec.arguments == {"weights": [1.0, 2.0]}
    assert aggregate(one, jnp.eye(2)).tolist() == [1.0, 2.0]
