"""Factory calls as text, read back by the command line's parser."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtljax.utils.registry import choose
from mtljax.utils.spec import Spec, to_text


def cat(
    lives: int = 9,
    weight: float = 4.0,
    name: str = "Tom",
    tame: bool = True,
    toes: tuple[int, ...] = (5, 5),
    friends: tuple[str, ...] = (),
    chip: int | None = None,
):
    raise NotImplementedError


ARGUMENTS = {
    "lives": st.integers(),
    "weight": st.floats(allow_nan=False, allow_infinity=False),
    "name": st.text(min_size=1),
    "tame": st.booleans(),
    "toes": st.lists(st.integers(), min_size=1).map(tuple),
    "friends": st.lists(st.text(), min_size=1).map(tuple),
    "chip": st.none() | st.integers(),
}


@given(st.fixed_dictionaries({}, optional=ARGUMENTS))
def test_text_is_read_back_as_the_same_arguments(arguments):
    chosen = choose("animal", to_text(Spec("cat", arguments)), {"cat": cat})
    assert chosen.name == "cat"
    assert chosen.arguments == arguments


def test_arrays_are_written_as_tuples():
    assert to_text(Spec("fixed", {"weights": np.array([1.0, 2.5])})) == "fixed:weights=(1.0,2.5)"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {"a": 1}, len])
def test_other_values_are_refused_by_name(value):
    with pytest.raises(ValueError, match="cat: lives cannot be written as text: "):
        to_text(Spec("cat", {"lives": value}))
