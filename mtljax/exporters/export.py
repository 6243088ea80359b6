"""Writing a trained run in one of the formats, encrypted if the run is."""

from pathlib import Path
from typing import Any, NamedTuple

from mtljax.exporters import EXPORTS
from mtljax.exporters.model import model_of
from mtljax.runs.encrypted_store import ENDING, write_encrypted
from mtljax.runs.encryption import read_keys
from mtljax.runs.load import load_run
from mtljax.utils.files import check_output, write_bytes
from mtljax.utils.registry import nearest


class Exported(NamedTuple):
    """What was written."""

    files: list[Path]
    description: dict[str, Any]
    """See `mtljax.exporters.model.describe`."""


def export_run(
    run: Path,
    to: str,
    output: Path | None = None,
    *,
    encrypt: bool = False,
    verify: Path | None = None,
) -> Exported:
    """Writes the best model of a run folder in one of the formats of `EXPORTS`.

    Args:
      run: The run folder.
      to: The format.
      output: The file; None: in the run folder, called after the experiment and the format. What
        is encrypted has `.age` behind its name, always.
      encrypt: Encrypt, in the age format, though the run is not encrypted; one that is always is.
      verify: File of a public key, whose owner must have signed the run.

    Raises:
      ValueError: No such format, a run that cannot be loaded, a file that cannot be written, a
        package that is missing, or a network that the format has no words for.
    """
    if to not in EXPORTS:
        raise ValueError(f"unknown format {to!r}{nearest(to, EXPORTS)}")
    trained = load_run(run, verify=verify)
    keys = read_keys() if encrypt or trained.experiment.encrypt else None
    ending = "" if keys is None else ENDING
    plain = output or run / f"{trained.experiment.name}.{to}"
    if ending and plain.suffix == ending:
        plain = plain.with_suffix("")
    name = lambda added: plain.with_name(f"{plain.name}{added}{ending}")
    check_output(name(""))
    model = model_of(trained)
    made = {name(added): data for added, data in EXPORTS[to](model).items()}
    for path, data in made.items():
        if keys is None:
            write_bytes(path, data)
        else:
            write_encrypted(path, data, keys)
    return Exported(list(made), model.description)
