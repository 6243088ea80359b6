"""The verbs of the command line, a file per family; each is a function of the remaining arguments.

What they need they import when they are called, so that `--help` and a misspelt flag take no time.
"""

from collections.abc import Callable

from mtljax.cli.verbs.compare import compare_verb, group_verb
from mtljax.cli.verbs.data import data_verb, prepare_verb
from mtljax.cli.verbs.listing import list_verb
from mtljax.cli.verbs.security import screen_verb, sign_verb, verify_verb
from mtljax.cli.verbs.train import train_verb
from mtljax.cli.verbs.use_run import evaluate_verb, export_verb, predict_verb

VERBS: dict[str, Callable[[list[str]], int]] = {
    "train": train_verb,
    "compare": compare_verb,
    "group": group_verb,
    "evaluate": evaluate_verb,
    "predict": predict_verb,
    "export": export_verb,
    "prepare": prepare_verb,
    "data": data_verb,
    "screen": screen_verb,
    "sign": sign_verb,
    "verify": verify_verb,
    "list": list_verb,
}
"""Name -> function of the arguments behind it that returns the exit status; the first line of its
docstring is what `--help` says of it."""
