"""Parts of an experiment that an experiment file of the user defines, such as balancers.

The file adds them to the dict of their kind, as `BALANCERS["mine"] = mine`, so a process that reads
config.json must execute it first. config.json records it under `code`, in the form of the names of
task classes: `{"file:/path/of/file.py#mine": SHA-256}`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtljax.balancing import BALANCERS
from mtljax.config.experiment import Experiment
from mtljax.config.task_classes import FILE, check_content, executed_files, load_file
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

BUILT_IN = {field: frozenset(registry) for field, registry in REGISTRIES.items()}
"""Names that no user has added."""


def part_digests(experiment: Experiment, package: Path) -> dict[str, tuple[Path, str]]:
    """Returns {name in config.json: (file, its SHA-256)} of the user's files with parts.

    A part that an experiment file imports, or makes from parts of the package, is that of all
    experiment files of the user that this process has executed.

    Args:
      experiment: Experiment with the names of its parts.
      package: Folder of the experiments of the package, which are not the user's.
    """
    digests = {}
    for field, registry in REGISTRIES.items():
        for name in {*re.findall(r"\w+", getattr(experiment, field))} - BUILT_IN[field]:
            if name in registry:
                files = executed_files()
                module = getattr(registry[name], "__module__", "")
                own = [file for file in files.values() if file[0].parent != package]
                for path, sha256 in [files[module]] if module in files else own:
                    digests[f"{FILE}{path}#{name}"] = path, sha256
    return dict(sorted(digests.items()))


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
