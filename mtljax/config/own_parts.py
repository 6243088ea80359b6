"""Parts of an experiment that an experiment file of the user defines, such as balancers.

The file adds them to the dict of their kind, as `BALANCERS["mine"] = mine`, so a process that reads
config.json must execute it first. config.json records it under `code`, in the form of the names of
task classes: {"file:/path/of/file.py#mine": SHA-256}.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtljax.balancing import BALANCERS
from mtljax.config.experiment import Experiment
from mtljax.config.task_classes import FILE, check_content, executed_file, load_file
from mtljax.models import FUSIONS, TRUNKS
from mtljax.optim.optimizers import OPTIMIZERS
from mtljax.optim.schedules import SCHEDULES
from mtljax.utils.text import quoted

REGISTRIES: Mapping[str, Mapping[str, Any]] = {
    "balancer": BALANCERS,
    "trunk": TRUNKS,
    "fusion": FUSIONS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
"""Field of an experiment -> dict of the parts that it names."""


def part_digests(experiment: Experiment) -> dict[str, tuple[Path, str]]:
    """Returns {name in config.json: (file, its SHA-256)} of parts that executed files define."""
    digests = {}
    for field, registry in REGISTRIES.items():
        for name in re.findall(r"\w+", getattr(experiment, field)):
            make = registry.get(name)
            module = getattr(getattr(make, "func", make), "__module__", "")
            if (found := executed_file(module)) is not None:
                digests[f"{FILE}{found[0]}#{name}"] = found
    return digests


def load_parts(code: Mapping[str, Any], *, exact: bool = False) -> None:
    """Executes the trusted files with the parts of a recorded experiment.

    Args:
      code: Content of the field `code` of config.json.
      exact: Refuse files that have changed since config.json was written.

    Raises:
      ValueError: A file is missing, not trusted or raises an exception.
    """
    for key, sha256 in code.items():
        place, separator, name = str(key).rpartition("#")
        if separator and place.startswith(FILE) and isinstance(sha256, str):
            module = load_file(place, sha256, quoted(name), exact=exact)
            check_content(module, sha256, exact=exact)
