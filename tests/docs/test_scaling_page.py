"""The page on several devices: its code runs."""

import re
from pathlib import Path

import jax
import optax
from support.problem import TASKS, make_batch, make_model

import mtljax
from mtljax.balancing import pcgrad

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


def test_the_code_shown_takes_a_step():
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    parts = make_model(), TASKS, pcgrad(), optax.adam(1e-3)
    namespace = {"mtljax": mtljax, "jax": jax, "parts": parts, "batch": make_batch(0, 64)}
    exec(code, namespace)
    assert int(namespace["state"].step) == 1
