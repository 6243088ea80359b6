"""Balancers as text."""

import shlex

import jax
import pytest

from mtljax import Data, Experiment
from mtljax.balancing import (
    Balancer,
    Needs,
    aggregate,
    cagrad,
    chain,
    cr_mogm,
    every,
    fixed,
    from_spec,
    grouped,
    nash_mtl,
    normalized,
    pcgrad,
    preferred,
    upgrad,
    uw,
)
from mtljax.config.balancers import balancer_from_text, canonical_text
from mtljax.tasks import Classification
from mtljax.utils.spec import to_text

EXPRESSIONS = {
    "cagrad:c=0.4": cagrad(c=0.4),
    "uw+cagrad:c=0.4": chain(uw(), cagrad(c=0.4)),
    "upgrad@preferred:2,1,1": preferred(upgrad(), (2.0, 1.0, 1.0)),
    "pcgrad@normalized:norm": normalized(pcgrad(), by="norm"),
    "pcgrad@normalized:average_loss,decay=0.5": normalized(pcgrad(), by="average_loss", decay=0.5),
    "nash_mtl@every:10": every(nash_mtl(), 10),
    "cagrad:c=0.4@grouped:stage": grouped(cagrad(c=0.4), by="stage"),
    "cagrad@cr_mogm:smoothing=0.5": cr_mogm(cagrad(), smoothing=0.5),
    "uw+nash_mtl@every:10": chain(uw(), every(nash_mtl(), 10)),
    "pcgrad@normalized:norm@every:10": every(normalized(pcgrad(), by="norm"), 10),
    "fixed:1,2,3+pcgrad": chain(fixed((1.0, 2.0, 3.0)), pcgrad()),
    "uw:learning_rate=1e-2+fixed:weights=(1,2,3)+pcgrad": chain(
        uw(learning_rate=1e-2), fixed((1.0, 2.0, 3.0)), pcgrad()
    ),
    "(uw+nash_mtl)@every:10": every(chain(uw(), nash_mtl()), 10),
    "uw+(uw+nash_mtl)": chain(uw(), chain(uw(), nash_mtl())),
}


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_an_expression_is_the_call_that_it_stands_for(text):
    balancer, expected = balancer_from_text(text), EXPRESSIONS[text]
    written = to_text(expected.spec)
    assert to_text(balancer.spec) == written
    assert to_text(balancer_from_text(written).spec) == written
    jacobian = jax.random.normal(jax.random.key(0), (3, 8))
    for other in (balancer, from_spec(expected.spec)):
        assert (aggregate(other, jacobian) == aggregate(expected, jacobian)).all()


def test_spellings_of_an_expression_share_a_canonical_text():
    for text in ("uw+nash_mtl@every:10", "uw + nash_mtl@every:period=10", "uw+\tnash_mtl@every:10"):
        assert canonical_text(text) == "uw+nash_mtl@every:period=10"
    assert canonical_text("cagrad:c=0.4") == "cagrad:c=0.4"
    assert canonical_text("fixed:2,1") == "fixed:2,1"


@pytest.mark.parametrize("text", [text for text in EXPRESSIONS if "(" not in text])
def test_a_shell_needs_no_quotes(text):
    assert shlex.split(text) == [text]
    assert not set(text) & set("*?[]{}()<>|&;$`\\\"'!#~ ")


def test_an_experiment_records_the_text_of_composed_balancers():
    tasks = (Classification(name="a", num_classes=2), Classification(name="b", num_classes=2))
    fields = {"name": "x", "tasks": tasks, "data": Data(source="digits")}
    experiment = Experiment(**fields, balancer=chain(uw(), every(cagrad(c=0.4), 5)))
    assert experiment.balancer == "uw+cagrad:c=0.4@every:period=5"
    own = Balancer(init=uw().init, combine=uw().combine, needs=Needs.LOSSES)
    with pytest.raises(ValueError, match="cannot be recorded in config.json"):
        Experiment(**fields, balancer=chain(own, cagrad()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uw@cagrad:c=0.4", "cagrad is a method, not a combinator; to chain it write uw.cagrad:c="),
        ("uw+every:10", "every is a combinator; write METHOD@every:10"),
        ("chain:uw", "chain is a combinator; write uw.cagrad"),
        ("", "no balancer is named; write one such as ew"),
        (" ", "no balancer is named; write one such as ew"),
        ("(uw", "balancer '[(]uw': the parentheses are not in pairs"),
        ("(uw+cagrad))@every:10", "the parentheses are not in pairs"),
        ("uw+()", "no balancer is named"),
        ("cagrad@every:2@every:3", "it already computes its weights only once in 2 updates"),
        ("uw+", "'[+]' needs a method before and after it"),
        ("+uw", "'[+]' needs a method before and after it"),
        ("@every:10", "'@' needs a method before it and a combinator after it"),
        ("nash_mtl@", "'@' needs a method before it and a combinator after it"),
        ("nash_mtl@evry:10", "unknown combinator 'evry'; did you mean 'every'"),
        ("nash_mtl@every", "combinator 'every' needs period"),
        ("nash_mtl@every:often", "period must be an integer, not 'often'"),
        ("nash_mtl@every:0", "every: period must be >= 1, not 0"),
        ("upgrad@preferred:2,a", "combinator 'preferred': preference must be"),
        ("upgrad@preferred:0,0", "preferences must be finite, >= 0, not all 0"),
        ("pcgrad@normalized:length", "by must be one of none, norm, loss,"),
        ("pcgrad@grouped:layer", "by must be one of all, stage, module, parameter, not 'layer'"),
        ("cagrad+uw", "chain does not take cagrad: it reads the gramian"),
        ("uw+cagrat", "unknown balancer 'cagrat'; did you mean 'cagrad'"),
    ],
)
def test_a_wrong_expression_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as error:
        balancer_from_text(text)
    assert "\n" not in str(error.value)
