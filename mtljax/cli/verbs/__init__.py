"""Verbs of the command line, one module per family.

Only the module of the requested verb is imported, and a verb imports JAX, orbax, matplotlib and the
like inside its function: `--help` and errors in flags must not wait for them.
"""

import importlib
from typing import NamedTuple


class Verb(NamedTuple):
    """Verb of the command line."""

    module: str
    """Module in this package that defines the function `NAME_verb(arguments) -> exit status`."""
    summary: str
    """Description in `--help`."""


VERBS = {
    "train": Verb("train", "Train an experiment or resume its run (default verb)."),
    "compare": Verb("compare", "Compare baselines and methods over several seeds."),
    "front": Verb("compare", "Train the Pareto front of the tasks for several preferences."),
    "search": Verb("search", "Search for the best settings of an experiment on validation."),
    "group": Verb("compare", "Find out which tasks to train together."),
    "merge": Verb("merge", "Merge single-task runs into one multi-task network, without training."),
    "evaluate": Verb("use_run", "Compute the metrics of a trained run on one split."),
    "predict": Verb("use_run", "Predict all tasks for image files with a trained run."),
    "export": Verb("use_run", "Write a trained model as StableHLO, ONNX or safetensors."),
    "prepare": Verb("data", "Download and prepare the data of an experiment."),
    "data": Verb("data", "Summarize the data of an experiment and draw samples."),
    "screen": Verb("data", "Find broken, duplicate, leaked or mislabelled examples."),
    "sign": Verb("security", "Sign a run folder or a file of weights."),
    "verify": Verb("security", "Verify the signature of a run folder or a file."),
    "list": Verb("listing", "List experiments, balancers, trunks and other choices."),
}
"""Name of a verb -> its module and summary."""


def run_verb(name: str, arguments: list[str]) -> int:
    """Runs a verb on its arguments and returns the exit status."""
    module = importlib.import_module(f"{__name__}.{VERBS[name].module}")
    return getattr(module, f"{name}_verb")(arguments)
