"""Verbs `sign` and `verify`."""

import dataclasses
from pathlib import Path

from mtljax.cli.flags import parse
from mtljax.utils.urls import named


@dataclasses.dataclass(frozen=True, kw_only=True)
class _SignedPath:
    run: Path | None = None
    """Run folder; the signature covers its configuration, result and checkpoints."""
    file: Path | None = None
    """A single file, such as exported weights, instead of a run folder."""

    def path(self) -> Path:
        """The run folder or the file; raises ValueError if neither or both are given."""
        path = self.run or self.file
        if path is None or (self.run and self.file):
            raise ValueError("give either --run DIR or --file FILE")
        return path


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignFlags(_SignedPath):
    """Signs a run folder or a file in the OpenSSF model-signing format."""

    key: Path
    """PEM file of an elliptic-curve private key; its password, if any, is read from
    MTLJAX_SIGNING_PASSWORD."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyFlags(_SignedPath):
    """Verifies that a run folder or a file is unchanged since the owner of a key signed it."""

    key: Path
    """PEM file of the public key."""


def sign_verb(arguments: list[str]) -> int:
    """Runs `sign` and returns the exit status."""
    flags = parse(SignFlags, arguments, "sign")
    path = flags.path()
    from mtljax.runs.signing import sign

    print(named(f"signature written to {sign(path, flags.key)}"))
    return 0


def verify_verb(arguments: list[str]) -> int:
    """Runs `verify` and returns the exit status."""
    flags = parse(VerifyFlags, arguments, "verify")
    path = flags.path()
    from mtljax.runs.signing import verify

    verify(path, flags.key)
    print(named(f"the signature of {path} is valid"))
    return 0
