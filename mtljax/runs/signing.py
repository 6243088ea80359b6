"""Signatures of models in the OpenSSF model-signing format, with a local key.

The reference program verifies them too:
`model_signing verify key RUN --signature RUN/model.sig --public_key KEY --ignore_unsigned_files`.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtljax.runs.checkpoints import FOLDER
from mtljax.runs.folder import CALIBRATION, CONFIG, RESULT
from mtljax.runs.input_spec import INPUT
from mtljax.utils.bounded_reading import check_files
from mtljax.utils.files import PART
from mtljax.utils.optional import require
from mtljax.utils.text import first_line

ENDING, IN_A_FOLDER = ".sig", "model.sig"
"""Extension of the signature of a file, and name of the signature in a folder."""
SIGNED = (CONFIG, INPUT, RESULT, CALIBRATION, FOLDER)
"""Signed files of a run folder: those that loading reads. Others may be added later."""
PASSWORD = "MTLJAX_SIGNING_PASSWORD"
"""Environment variable with the password of the private key, if any."""


def signature_of(path: Path) -> Path:
    """Returns the path of the signature of a run folder or file."""
    return path / IN_A_FOLDER if path.is_dir() else path.with_name(path.name + ENDING)


def sign(path: Path, private_key: Path) -> Path:
    """Signs a run folder or a file, and returns the path of the signature.

    Args:
      private_key: PEM file of an elliptic-curve key, as made by `openssl ecparam -name prime256v1
        -genkey -noout`. Its password, if any, is in `MTLJAX_SIGNING_PASSWORD`.

    Raises:
      ValueError: The path does not exist, or the key is unusable.
    """
    model_signing = _require_model_signing()
    _check_exists(path)
    signature = signature_of(path)
    part = signature.with_name(signature.name + PART)
    password = os.environ.get(PASSWORD)
    with _key_errors(private_key, "private", f" ({PASSWORD} is its password)"):
        signer = model_signing.signing.Config().use_elliptic_key_signer(
            private_key=private_key, password=password.encode() if password else None
        )
    try:
        check_files(path)
        signer.set_hashing_config(_hashing(path)).sign(path, part)
        os.replace(part, signature)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be signed: {first_line(error)}") from None
    return signature


def verify(path: Path, public_key: Path) -> None:
    """Verifies that a run folder or file is unchanged since the owner of a PEM key signed it.

    Raises:
      ValueError: A file was changed, added or removed, the key differs, or there is no signature.
    """
    model_signing = _require_model_signing()
    _check_exists(path)
    signature = signature_of(path)
    if not signature.is_file():
        raise ValueError(f"{path} is not signed: {signature} does not exist")
    with _key_errors(public_key, "public"):
        verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    with _invalid_signature_error(path), contextlib.redirect_stdout(io.StringIO()):
        check_files(signature)
        check_files(path)
        _check_canonical(signature)
        verifier.set_hashing_config(_hashing(path)).verify(path, signature)


@contextlib.contextmanager
def _key_errors(key: Path, kind: str, hint: str = "") -> Iterator[None]:
    """Checks the file of a key, and turns the errors of its parsers into a ValueError."""
    try:
        check_files(key)
        yield
    except OSError as error:
        raise ValueError(f"{kind} key {key} cannot be read: {error.strerror}") from None
    except Exception as error:  # the parsers raise many kinds
        raise ValueError(
            f"{key} is not a usable elliptic-curve {kind} key{hint}: {first_line(error)}"
        ) from None


def _hashing(path: Path) -> Any:
    config = _require_model_signing().hashing.Config()
    unsigned = [] if path.is_file() else [p.name for p in path.iterdir() if p.name not in SIGNED]
    return config.set_ignored_paths(paths=unsigned, ignore_git_paths=False)


def _check_exists(path: Path) -> None:
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    if path.is_dir() and not (path / CONFIG).is_file():
        raise ValueError(f"{path} is not a run folder: it has no {CONFIG}")


def _check_canonical(signature: Path) -> None:
    """Refuses other encodings of the same signature, in JSON or base64."""
    from sigstore_models.bundle.v1 import Bundle

    text = signature.read_text()
    if Bundle.from_json(text.encode()).to_json() != text:
        raise ValueError(f"{signature} is not in canonical form")


@contextlib.contextmanager
def _invalid_signature_error(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # parsers of damaged signatures raise many kinds
        raise ValueError(
            f"the signature of {path} is invalid: the path was changed after signing, or signed "
            f"with another key ({first_line(error)})"
        ) from None


def _require_model_signing() -> Any:
    return require("model_signing", "protect", "signatures")
