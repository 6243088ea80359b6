"""The scenes experiment with cross-task attention: each task looks at the other tasks' features.

Everything else is as in `scenes`, so that the two can be compared, over seeds and with the
single-task baselines that say what sharing gains or costs:

    python -m mtljax.main compare --experiment scenes --fusions none attention --seeds 3

python -m mtljax.main --experiment scenes_attention
"""

import dataclasses

from mtljax.config import find_experiment

experiment = dataclasses.replace(
    find_experiment("scenes"), name="scenes_attention", fusion="attention"
)
