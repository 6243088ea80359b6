"""`screen`, `sign` and `verify`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from mtljax.cli.flags import parse
from mtljax.cli.verbs.experiment import read_experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Screen:
    """Where to write what is found."""

    experiment: str = ""
    """Name of an experiment, or the path of a file that defines one, or of a run's config.json."""
    output: Path | None = None
    """Folder for report.html and findings.json (default: runs/screen-NAME)."""
    drop: Path | None = None
    """File for the list of examples to leave out, which training reads with --data.drop."""
    folds: int = 4
    """How many networks are trained to judge the labels, each on the other examples; 0: none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignFlags:
    """Signs a run folder, or a file of weights, as OpenSSF model-signing does."""

    path: Annotated[Path, tyro.conf.Positional]
    """The run folder (its configuration, result and checkpoints are signed), or the file."""
    key: Path
    """PEM file of a private key of an elliptic curve; MTLJAX_SIGNING_PASSWORD has its password, if
    it has one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyFlags:
    """Makes sure that a run folder or a file is what the owner of a key has signed."""

    path: Annotated[Path, tyro.conf.Positional]
    """What was signed."""
    key: Path
    """PEM file of the public key."""


def screen_verb(arguments: list[str]) -> int:
    """What is broken, doubled, leaked or mislabelled in an experiment's data."""
    flags, experiment = read_experiment(arguments, "screen", "Screens the data of", Screen)
    from mtljax import compilation
    from mtljax.screening.findings import by_kind
    from mtljax.screening.screen import screen_to_folder
    from mtljax.utils.terminal import say

    compilation.use_compile_cache()
    output = flags.output or Path("runs") / f"screen-{experiment.name}"
    findings = screen_to_folder(experiment, output, flags.drop, flags.folds, say)
    for kind, found in by_kind(findings):
        say(f"{len(found):>6} {kind}, as {found[0].place}: {found[0].detail}")
    if not findings:
        say("nothing suspicious")
    print(f"pictures: {output / 'report.html'}")
    return 0


def sign_verb(arguments: list[str]) -> int:
    """Signs a run folder or a file."""
    flags = parse(SignFlags, arguments, "sign")
    from mtljax.runs.signing import sign

    print(f"signature written to {sign(flags.path, flags.key)}")
    return 0


def verify_verb(arguments: list[str]) -> int:
    """Whether the signature of a run folder or a file holds."""
    flags = parse(VerifyFlags, arguments, "verify")
    from mtljax.runs.signing import verify

    verify(flags.path, flags.key)
    print(f"the signature of {flags.path} holds")
    return 0
