"""Encryption keys in the age format, read from a file or the environment.

Keys are never read from a flag, and never written to a configuration, a log or a message.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtljax.utils.optional import require

FILE, KEY, PASSPHRASE = "MTLJAX_KEY_FILE", "MTLJAX_KEY", "MTLJAX_PASSPHRASE"
"""Environment variables: path of a key file; contents of a key file; a passphrase."""
MAX_CHARACTERS = 2**20
"""Characters of a key file that are read."""
SECRET, PUBLIC = "AGE-SECRET-KEY-", "age1"
"""Prefixes of secret and public keys of age."""
REMEDY = (
    f"set {FILE} to a file made by age-keygen (or a file of public keys, to write only), {KEY} to "
    f"the contents of such a file, or {PASSPHRASE}"
)
"""How to set a key, for messages."""


@dataclasses.dataclass(frozen=True, repr=False)
class Keys:
    """Keys to encrypt and decrypt with, or a passphrase.

    A passphrase takes over a second per file, by design, to slow down guessing.

    Attributes:
      recipients: Public keys to encrypt for.
      identities: Secret keys to decrypt with.
      passphrase: Replaces both.
    """

    recipients: tuple[Any, ...] = ()
    identities: tuple[Any, ...] = ()
    passphrase: str | None = None

    def encrypt(self, data: bytes) -> bytes:
        """Returns the data as an age file."""
        pyrage = require_pyrage()
        if self.passphrase is not None:
            return pyrage.passphrase.encrypt(data, self.passphrase)
        return pyrage.encrypt(data, list(self.recipients))

    def decrypt(self, data: bytes, what: str) -> bytes:
        """Inverse of `encrypt`; messages name the file `what`.

        Raises:
          ValueError: The key does not fit, or the file is damaged.
        """
        pyrage = require_pyrage()
        if self.passphrase is None and not self.identities:
            raise ValueError(f"{what} is encrypted and no secret key is set: {REMEDY}")
        try:
            if self.passphrase is not None:
                return pyrage.passphrase.decrypt(data, self.passphrase)
            return pyrage.decrypt(data, list(self.identities))
        except pyrage.DecryptError as error:
            origin = PASSPHRASE if self.passphrase is not None else f"{FILE} or {KEY}"
            raise ValueError(
                f"{what} cannot be decrypted: it is damaged, or the key in {origin} is not "
                f"one that it was encrypted for ({str(error).splitlines()[0]})"
            ) from None

    def for_this_process(self) -> "Keys":
        """Adds a temporary secret key if there is none.

        A process that has public keys only can then read the files it wrote itself.
        """
        if self.passphrase is not None or self.identities:
            return self
        temporary = require_pyrage().x25519.Identity.generate()
        return Keys((*self.recipients, temporary.to_public()), (temporary,))


def read_keys(environment: Mapping[str, str] = os.environ) -> Keys:
    """Reads the keys that the environment names.

    Raises:
      ValueError: None or several are set, or the key is invalid. The message does not contain it.
    """
    given = [name for name in (FILE, KEY, PASSPHRASE) if environment.get(name)]
    if not given:
        raise ValueError(f"no key to encrypt or decrypt with: {REMEDY}")
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are both set; set only one of them")
    require_pyrage()
    (name,) = given
    if name == PASSPHRASE:
        return Keys(passphrase=environment[name])
    if name == KEY:
        return parse_keys(environment[name], name)
    path = Path(environment[name]).expanduser()
    try:
        with path.open() as file:  # may be a pipe, such as bash's <(...), which has no size
            return parse_keys(file.read(MAX_CHARACTERS), f"{name}={path}")
    except UnicodeDecodeError:
        raise ValueError(f"{name}={path} is not a key file: it is not text") from None
    except OSError as error:
        raise ValueError(f"{name}={path} cannot be read: {error.strerror}") from None


def parse_keys(text: str, origin: str) -> Keys:
    """Parses secret or public keys, with comments, as written by `age-keygen`.

    Raises:
      ValueError: The text has anything else in it; the message does not contain it.
    """
    pyrage = require_pyrage()
    recipients, identities = [], []
    words = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE).split()
    for number, word in enumerate(words, 1):
        try:
            if word.startswith(SECRET):
                identities.append(pyrage.x25519.Identity.from_str(word))
            elif word.startswith(PUBLIC):
                recipients.append(pyrage.x25519.Recipient.from_str(word))
            else:
                raise pyrage.IdentityError
        except (pyrage.IdentityError, pyrage.RecipientError):
            raise ValueError(
                f"{origin}: word {number} is not an age key; keys start with {SECRET} (secret) or "
                f"{PUBLIC} (public), as made by age-keygen"
            ) from None
    if not words:
        raise ValueError(f"{origin} contains no key; make one with age-keygen")
    return Keys((*recipients, *(secret.to_public() for secret in identities)), tuple(identities))


def require_pyrage() -> Any:
    """Returns the package pyrage, which reads and writes the age format."""
    return require("pyrage", "protect", "encryption")
