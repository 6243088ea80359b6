"""Tiers of tests: without a marker (the README's command), `full` and `slow`."""

import pytest


def full_except(chosen, values):
    """Returns values for `pytest.mark.parametrize`, those not in `chosen` marked `full`.

    A value is in `chosen` as it is passed: a tuple where several arguments are parametrized.
    """
    return _marked_except(pytest.mark.full, chosen, values)


def slow_except(chosen, values):
    """Returns the same with the mark `slow`."""
    return _marked_except(pytest.mark.slow, chosen, values)


def _marked_except(mark, chosen, values):
    values = list(values)
    if missing := [value for value in chosen if value not in values]:
        raise ValueError(f"not among the values: {missing}")
    return [
        value
        if value in chosen
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=mark)
        for value in values
    ]
