"""Checkpoint store with one encrypted file in the age format per checkpoint.

A checkpoint is serialized and encrypted in memory, so that plain arrays never reach the disk; orbax
would write them.
"""

import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from mtljax.parallel import to_host
from mtljax.runs.encryption import Keys
from mtljax.runs.orbax_store import OpenCheckpoint
from mtljax.utils.bounded_reading import check_bytes, stored_bytes
from mtljax.utils.files import PART, write_bytes
from mtljax.utils.safetensors import pack, unpack

ENDING = ".age"
"""Extension of encrypted files."""
SCORE = "score"
"""Name of the score among the arrays, whose names start with a field of the state."""


class AgeStore:
    """Checkpoints as files `STEP.age`, which the program `age` decrypts to safetensors.

    Of several processes the first writes, and all read; each needs the secret key.
    """

    def __init__(self, folder: Path, keys: Keys, *, read_only: bool):
        """Opens the store.

        Raises:
          ValueError: The folder has unencrypted checkpoints, or the secret key is missing.
        """
        if jax.process_count() > 1 and keys.passphrase is None and not keys.identities:
            raise ValueError("several processes need the secret key, to read what the first wrote")
        self._folder, self._keys = folder, keys.for_this_process()
        plain = [path.name for path in folder.glob("*") if path.name.isdecimal()]
        if plain:
            raise ValueError(
                f"{folder} has unencrypted checkpoints ({min(plain)}); choose another --workdir"
            )
        # Not by other processes: the first takes a folder that exists for a foreign one.
        if not read_only and jax.process_index() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            for part in folder.glob(f"*{ENDING}{PART}"):  # of a process that was killed
                part.unlink(missing_ok=True)
        self._steps = set(encrypted_steps(folder))
        self._scores: dict[int, float] = {}
        self._writer = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None

    def save(self, step: int, arrays: Mapping[str, Any], score: float) -> None:
        """Saves in the background; a lower score is better."""
        self._finish_writing()
        self._steps.add(step)
        self._scores[step] = score
        surplus = self._steps - {max(self._steps), self.best()}
        self._steps -= surplus
        arrays = to_host(dict(arrays))  # from all processes
        if jax.process_index() > 0:
            return
        # Copied now: the next step may overwrite the memory of these arrays.
        data = pack({**arrays, SCORE: np.asarray(score, np.float64)})
        self._written = self._writer.submit(self._write, step, data, surplus)

    def _write(self, step: int, data: bytes, surplus: set[int]) -> None:
        write_bytes(self.path(step), self._keys.encrypt(data), sync=True)
        for old in surplus:
            self.path(old).unlink(missing_ok=True)

    def path(self, step: int) -> Path:
        """Returns the file of a checkpoint."""
        return self._folder / f"{step}{ENDING}"

    def steps(self) -> list[int]:
        """Returns the steps with complete checkpoints."""
        return sorted(self._steps)

    def latest(self) -> int | None:
        """Returns the last step with a checkpoint; None without any."""
        return max(self._steps, default=None)

    def best(self) -> int | None:
        """Returns the step with the lowest score, the latest of equals."""
        return min(self._steps, key=lambda step: (self._score(step), -step), default=None)

    def _score(self, step: int) -> float:
        if step not in self._scores:
            self.open(step)
        score = self._scores[step]
        return math.inf if math.isnan(score) else score

    def open(self, step: int) -> OpenCheckpoint:
        """Decrypts a checkpoint; raises ValueError if it was modified or the key does not fit."""
        self.wait()
        what = f"checkpoint {self.path(step)}"
        arrays = unpack(read_encrypted(self.path(step), self._keys, what), what)
        if SCORE not in arrays:
            raise ValueError(f"{what} is not a checkpoint: it has no {SCORE}")
        self._scores[step] = float(arrays.pop(SCORE))

        def load(shardings: Mapping[str, Sharding]) -> dict[str, jax.Array]:
            make = jax.make_array_from_callback
            put = lambda x, sharding: make(x.shape, sharding, lambda i: np.asarray(x[i]))
            return {name: put(array, shardings[name]) for name, array in arrays.items()}

        return OpenCheckpoint(arrays, load)

    def delete(self, step: int) -> None:
        """Deletes a checkpoint."""
        self._steps.discard(step)
        if jax.process_index() == 0:
            self.path(step).unlink(missing_ok=True)

    def wait(self) -> None:
        """Waits in all processes until pending checkpoints are written."""
        self._finish_writing()
        if jax.process_count() > 1:
            from jax.experimental.multihost_utils import sync_global_devices

            sync_global_devices("checkpoint")

    def _finish_writing(self) -> None:
        if self._written is not None:
            self._written.result()
            self._written = None

    def close(self) -> None:
        """Waits until pending checkpoints are written, and ends the writer."""
        self._finish_writing()
        self._writer.shutdown()


def encrypted_steps(folder: Path) -> list[int]:
    """Returns the steps with complete encrypted checkpoints."""
    return sorted(int(p.stem) for p in folder.glob(f"*{ENDING}") if p.stem.isdecimal())


def write_encrypted(path: Path, data: bytes, keys: Keys) -> None:
    """Encrypts data in memory and writes a file atomically; raises ValueError if that fails."""
    encrypted = keys.encrypt(data)
    try:
        write_bytes(path, encrypted, sync=True)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}") from None


def read_encrypted(path: Path, keys: Keys, what: str) -> bytes:
    """Reads and decrypts a file in memory; inverse of `write_encrypted`.

    Raises:
      ValueError: The file is missing or modified, or the key does not fit.
    """
    try:
        check_bytes(path.stat().st_size, stored_bytes(path))
        encrypted = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{what} cannot be read: {error.strerror}") from None
    return keys.decrypt(encrypted, what)
