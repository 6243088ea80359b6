"""Texts of `--space`."""

import pytest
from support.comparison import SMALL

from mtljax.config.overrides import with_overrides
from mtljax.tuning.space import parse_space


class Ends:
    """Suggests one end of every range, and records what it is asked for."""

    def __init__(self, last):
        self.last, self.asked = last, []

    def suggest_float(self, name, low, high, *, log=False):
        self.asked.append((name, low, high, "log" if log else "linear"))
        return high if self.last else low

    def suggest_int(self, name, low, high):
        self.asked.append((name, low, high, "int"))
        return high if self.last else low

    def suggest_categorical(self, name, choices):
        self.asked.append((name, tuple(choices)))
        return choices[-1 if self.last else 0]


@pytest.mark.parametrize(
    ("text", "asked", "first", "last"),
    [
        (
            "learning_rate=loguniform(1e-4,1e-1)",
            [("learning_rate", 1e-4, 0.1, "log")],
            "0.0001",
            "0.1",
        ),
        ("clip_norm=uniform(0.5,2)", [("clip_norm", 0.5, 2.0, "linear")], "0.5", "2"),
        ("data.batch-size=int(8,64)", [("data.batch_size", 8, 64, "int")], "8", "64"),
        (
            "balancer=choice(ew, uw, cagrad:c=0.4)",
            [("balancer", ("ew", "uw", "cagrad:c=0.4"))],
            "ew",
            "cagrad:c=0.4",
        ),
        (
            "optimizer=adamw:b1=uniform(0.8,0.9),weight_decay=loguniform(1e-4,1)",
            [
                ("optimizer:adamw:b1", 0.8, 0.9, "linear"),
                ("optimizer:adamw:weight_decay", 1e-4, 1.0, "log"),
            ],
            "adamw:b1=0.8,weight_decay=0.0001",
            "adamw:b1=0.9,weight_decay=1",
        ),
        (
            "trunk=choice(mlp:widths=(8,4),cnn)",
            [("trunk", ("mlp:widths=(8,4)", "cnn"))],
            "mlp:widths=(8,4)",
            "cnn",
        ),
    ],
)
def test_distributions_are_drawn_by_their_names(text, asked, first, last):
    space = parse_space([text], SMALL)
    for is_last, expected in ((False, first), (True, last)):
        ends = Ends(is_last)
        ((field, value),) = space.draw(ends)
        assert ends.asked == asked
        assert field == text.partition("=")[0].replace("-", "_")
        assert value == expected
        with_overrides(SMALL, [(field, value)], "--space")


def test_options_of_a_choice_have_parameters_of_their_own():
    space = parse_space(["balancer=choice(ew,cagrad:c=uniform(0.1,0.9))"], SMALL)
    first, last = Ends(False), Ends(True)
    assert space.draw(first) == [("balancer", "ew")]
    assert [name for name, *_ in first.asked] == ["balancer"]
    assert space.draw(last) == [("balancer", "cagrad:c=0.9")]
    assert [name for name, *_ in last.asked] == ["balancer", "balancer:cagrad:c"]


@pytest.mark.parametrize(("drawn", "text"), [(0.0123456, "0.01235"), (0.987654321, "0.987654321")])
def test_numbers_have_four_digits_but_stay_in_their_range(drawn, text):
    class Fixed(Ends):
        def suggest_float(self, name, low, high, *, log=False):
            return drawn

    space = parse_space(["learning_rate=uniform(0.001,0.98766)"], SMALL)
    assert space.draw(Fixed(False)) == [("learning_rate", text)]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "missing --space FIELD=DISTRIBUTION"),
        (["learning_rate"], "'learning_rate' is not FIELD=DISTRIBUTION"),
        (["learning_rate=0.1"], "has no distribution: uniform(a,b), loguniform(a,b), int(a,b)"),
        (["learning_rate=lognormal(0.1,1)"], "did you mean 'loguniform'?"),
        (["learning_rate=uniform(0.1,1"], "a parenthesis is not closed"),
        (["learning_rate=uniform(1)"], "uniform needs two numbers"),
        (["learning_rate=uniform(1,nan)"], "low must be below high"),
        (["learning_rate=uniform(2,1)"], "low must be below high"),
        (["learning_rate=loguniform(0,1)"], "loguniform needs numbers > 0"),
        (["steps=int(1.5,3)"], "int needs two integers"),
        (["steps=int(0,3)"], "--space steps=0: steps must be >= 1, not 0"),
        (["data.batch_size=uniform(8,64)"], "must be an integer"),
        (["balancer=choice(ew)"], "choice needs at least two different values"),
        (["balancer=choice(ew,ew)"], "choice needs at least two different values"),
        (["balancer=choice(ew,uww)"], "unknown balancer 'uww'; did you mean 'uw'?"),
        (["lerning_rate=uniform(0,1)"], "did you mean 'learning_rate'?"),
        (["seed=int(0,3)"], "there is no field 'seed'"),
        (["select=choice(loss,digit/accuracy)"], "cannot have select"),
        (["data.fold=choice(1/2,2/2)"], "cannot have data.fold"),
        (["learning_rate=uniform(0,1)", "learning-rate=uniform(0,1)"], "learning_rate twice"),
        (["trunk=mlp:widths=(int(4,8),4)"], "write ARGUMENT=int(...)"),
        (["balancer=choice(cagrad:c=uniform(0,1),cagrad:c=uniform(1,2))"], "two distributions"),
    ],
)
def test_invalid_texts_are_refused_in_one_line(texts, message):
    with pytest.raises(ValueError, match="--space") as caught:
        parse_space(texts, SMALL)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parameters_of_an_experiment_are_known_only_inside_of_the_space():
    texts = ("learning_rate=loguniform(1e-4,1e-1)", "balancer=choice(ew,uw)")
    assert parse_space(texts, SMALL).parameters_of(SMALL) == {
        "learning_rate": 0.05,
        "balancer": "ew",
    }
    assert parse_space(["balancer=choice(uw,dwa)"], SMALL).parameters_of(SMALL) is None
    assert parse_space(["learning_rate=uniform(0.1,1)"], SMALL).parameters_of(SMALL) is None
    assert parse_space(["clip_norm=choice(none,1)"], SMALL).parameters_of(SMALL) == {
        "clip_norm": "none"
    }
