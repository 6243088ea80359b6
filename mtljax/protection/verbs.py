"""Verbs of the command line that keep models safe."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from mtljax.flags import parse


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


def sign_verb(arguments: list[str]) -> int:
    """Signs a run folder or a file."""
    flags = parse(SignFlags, arguments, "sign")
    from mtljax.protection.signing import sign

    print(f"signature written to {sign(flags.path, flags.key)}")
    return 0


def verify_verb(arguments: list[str]) -> int:
    """Whether the signature of a run folder or a file holds."""
    flags = parse(VerifyFlags, arguments, "verify")
    from mtljax.protection.signing import verify

    verify(flags.path, flags.key)
    print(f"the signature of {flags.path} holds")
    return 0
