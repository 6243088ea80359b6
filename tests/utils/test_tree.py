"""Paths of nested data."""

import numpy as np
import pytest

from mtljax.utils.tree import flatten, flatten_json, replaced, unflatten

TREE = {"params": {"b": np.ones(2), "a": {"kernel": np.zeros((2, 3))}}, "empty": {}}


def test_a_tree_comes_back_from_its_paths_without_empty_nodes():
    leaves = flatten(TREE)
    assert list(leaves) == ["params/a/kernel", "params/b"]
    assert unflatten(leaves) == {"params": TREE["params"]}


def test_json_keeps_its_order_null_empty_containers_and_lists_of_plain_values():
    value = {"z": None, "a": {"tasks": [{"name": "x"}, {"name": "y"}], "size": [8, 8]}, "e": {}}
    assert list(flatten_json(value).items()) == [
        ("z", None),
        ("a.tasks.0.name", "x"),
        ("a.tasks.1.name", "y"),
        ("a.size", [8, 8]),
        ("e", {}),
    ]


def test_a_variable_that_is_unknown_or_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="no variable 'params/c'.*params/b"):
        replaced(TREE, {"params": {"c": np.ones(2)}})
    with pytest.raises(ValueError, match=r"params/b has shape \[2\] in the model, not \[3\]"):
        replaced(TREE, {"params": {"b": np.ones(3)}})
