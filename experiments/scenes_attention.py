"""Rendered indoor scenes: the tasks of `scenes` with cross-task attention between features.

All remaining settings are those of `scenes`. To compare both fusions over seeds, with single-task
baselines that measure the effect of sharing:

    python -m mtljax.main compare --experiment scenes --fusions none attention --seeds 3

python -m mtljax.main --experiment scenes_attention
"""

import dataclasses

from mtljax.config import find_experiment

experiment = dataclasses.replace(
    find_experiment("scenes"), name="scenes_attention", fusion="attention"
)
