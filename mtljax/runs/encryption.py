"""Keys that models are encrypted with, in the age format: from a file or the environment.

They are never read from a flag, and never written: not to a configuration, a log or a message.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtljax.utils.optional import require

FILE, KEY, PASSPHRASE = "MTLJAX_KEY_FILE", "MTLJAX_KEY", "MTLJAX_PASSPHRASE"
"""Environment variables: the path of a key file; what would be in it; a passphrase."""
MOST = 2**20
"""Characters of a key file that are read."""
SECRET, PUBLIC = "AGE-SECRET-KEY-", "age1"
REMEDY = (
    f"set {FILE} to a file that age-keygen made (or to one of public keys, to write only), or "
    f"{KEY} to what is in it, or {PASSPHRASE}"
)


@dataclasses.dataclass(frozen=True, repr=False)
class Keys:
    """What to encrypt for and what to decrypt with: either keys or a passphrase.

    A passphrase costs over a second for every file, which is what slows down guessing it; keys
    cost nothing.

    Attributes:
      recipients: Public keys; each of their owners can open what is encrypted.
      identities: Secret keys.
      passphrase: Instead of both.
    """

    recipients: tuple[Any, ...] = ()
    identities: tuple[Any, ...] = ()
    passphrase: str | None = None

    def encrypt(self, data: bytes) -> bytes:
        """The data as a file of `age`."""
        pyrage = require_pyrage()
        if self.passphrase is not None:
            return pyrage.passphrase.encrypt(data, self.passphrase)
        return pyrage.encrypt(data, list(self.recipients))

    def decrypt(self, data: bytes, what: str) -> bytes:
        """Undoes `encrypt`.

        Args:
          data: A file of `age`, whole.
          what: What to call it in messages.

        Raises:
          ValueError: The key is not one of those it is encrypted for, or a single bit was changed.
        """
        pyrage = require_pyrage()
        if self.passphrase is None and not self.identities:
            raise ValueError(f"{what} is encrypted, and there is no secret key: {REMEDY}")
        try:
            if self.passphrase is not None:
                return pyrage.passphrase.decrypt(data, self.passphrase)
            return pyrage.decrypt(data, list(self.identities))
        except pyrage.DecryptError as error:
            raise ValueError(
                f"{what} cannot be decrypted: it is damaged, or for another key than that of "
                f"{self.origin} ({str(error).splitlines()[0]})"
            ) from None

    @property
    def origin(self) -> str:
        """Which environment variables these keys come from."""
        return PASSPHRASE if self.passphrase is not None else f"{FILE} or {KEY}"

    def for_this_process(self) -> "Keys":
        """The same keys; without a secret one, one is made that lives only in this process.

        So a process can read again what it wrote itself, though it was given public keys only.
        """
        if self.passphrase is not None or self.identities:
            return self
        own = require_pyrage().x25519.Identity.generate()
        return Keys((*self.recipients, own.to_public()), (own,))


def read_keys(environment: Mapping[str, str] = os.environ) -> Keys:
    """The keys that the environment names.

    Raises:
      ValueError: There is none, more than one, or it is no key. The message shows nothing of it.
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
        with path.open() as file:  # it may be a pipe, as bash makes of <(...), so it has no size
            return parse_keys(file.read(MOST), f"{name}={path}")
    except UnicodeDecodeError:
        raise ValueError(f"{name}={path} is no key file: it is not text") from None
    except OSError as error:
        raise ValueError(f"{name}={path} cannot be read: {error.strerror}") from None


def parse_keys(text: str, origin: str) -> Keys:
    """Keys as `age-keygen` writes them, secret or public, with comments.

    Raises:
      ValueError: Something else is in the text; the message shows nothing of it.
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
                f"{origin}: word {number} is no key of age; keys begin with {SECRET} (secret) or "
                f"{PUBLIC} (public), as age-keygen makes them"
            ) from None
    if not words:
        raise ValueError(f"{origin} has no key in it; age-keygen makes one")
    return Keys((*recipients, *(own.to_public() for own in identities)), tuple(identities))


def require_pyrage() -> Any:
    """Returns the package pyrage, which reads and writes the age format."""
    return require("pyrage", "protect", "encryption")
