"""Signatures of models, by OpenSSF model-signing with a local key: what was signed is what loads.

The signature is that of the standard's own program, which checks it too:
`model_signing verify key RUN --signature RUN/model.sig --public_key KEY --ignore_unsigned_files`.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtljax.runs.checkpoints import FOLDER
from mtljax.runs.folder import CONFIG, INPUT, RESULT
from mtljax.utils.bounded_reading import check_files
from mtljax.utils.files import PART
from mtljax.utils.optional import require

ENDING, IN_A_FOLDER = ".sig", "model.sig"
SIGNED = (CONFIG, INPUT, RESULT, FOLDER)
"""What is signed of a run folder: all that is read to load it. Evaluations and predictions may be
written beside it later."""
PASSWORD = "MTLJAX_SIGNING_PASSWORD"
"""Environment variable with the password of the private key, if it has one."""


def signature_of(path: Path) -> Path:
    """Where the signature of a run folder or of a file is."""
    return path / IN_A_FOLDER if path.is_dir() else path.with_name(path.name + ENDING)


def sign(path: Path, private_key: Path) -> Path:
    """Signs a run folder, or a file of weights, and returns the file of the signature.

    Args:
      path: What to sign.
      private_key: PEM, of an elliptic curve, as `openssl ecparam -name prime256v1 -genkey -noout`
        makes it. Its password, if any, is in `MTLJAX_SIGNING_PASSWORD`.

    Raises:
      ValueError: There is nothing to sign, or the key cannot be used.
    """
    model_signing = _require_model_signing()
    _check_there(path)
    signature = signature_of(path)
    part = signature.with_name(signature.name + PART)
    password = os.environ.get(PASSWORD)
    try:
        check_files(private_key)
        signer = model_signing.signing.Config().use_elliptic_key_signer(
            private_key=private_key, password=password.encode() if password else None
        )
    except OSError as error:
        raise ValueError(f"private key {private_key} cannot be read: {error.strerror}") from None
    except Exception as error:  # whatever its parsers raise
        raise ValueError(
            f"{private_key} is no private key of an elliptic curve that can be used "
            f"({PASSWORD} has its password): {_first_line(error)}"
        ) from None
    try:
        check_files(path)
        signer.set_hashing_config(_hashing(path)).sign(path, part)
        os.replace(part, signature)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be signed: {_first_line(error)}") from None
    return signature


def verify(path: Path, public_key: Path) -> None:
    """Makes sure that a run folder or a file is what the owner of a key has signed.

    Args:
      path: What was signed.
      public_key: PEM.

    Raises:
      ValueError: A file was changed, added or removed, the key is another, or nothing is signed.
    """
    model_signing = _require_model_signing()
    _check_there(path)
    signature = signature_of(path)
    if not signature.is_file():
        raise ValueError(f"{path} is not signed: there is no {signature}")
    try:
        check_files(public_key)
        verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except OSError as error:
        raise ValueError(f"public key {public_key} cannot be read: {error.strerror}") from None
    except Exception as error:  # whatever its parsers raise
        raise ValueError(
            f"{public_key} is no public key of an elliptic curve: {_first_line(error)}"
        ) from None
    with _does_not_hold(path), contextlib.redirect_stdout(io.StringIO()):
        check_files(signature)
        check_files(path)
        _check_written_by_us(signature)
        verifier.set_hashing_config(_hashing(path)).verify(path, signature)


def _hashing(path: Path) -> Any:
    config = _require_model_signing().hashing.Config()
    others = [] if path.is_file() else [p.name for p in path.iterdir() if p.name not in SIGNED]
    return config.set_ignored_paths(paths=others, ignore_git_paths=False)


def _check_there(path: Path) -> None:
    if not path.exists():
        raise ValueError(f"there is no run folder or file {path}")
    if path.is_dir() and not (path / CONFIG).is_file():
        raise ValueError(f"{path} is not a run folder: it has no {CONFIG}")


def _check_written_by_us(signature: Path) -> None:
    """Refuses a signature that another spelling of JSON or base64 makes look different."""
    from sigstore_models.bundle.v1 import Bundle

    text = signature.read_text()
    if Bundle.from_json(text.encode()).to_json() != text:
        raise ValueError(f"{signature} is not written as it was signed")


@contextlib.contextmanager
def _does_not_hold(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # parsers of damaged signatures raise anything
        raise ValueError(
            f"the signature of {path} does not hold: it was changed after it was signed, or signed "
            f"with another key ({_first_line(error)})"
        ) from None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _require_model_signing() -> Any:
    return require("model_signing", "protect", "signatures")
