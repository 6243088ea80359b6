"""Export of a trained run, encrypted if the run is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtljax.exporters import EXPORTS
from mtljax.exporters.model import model_of
from mtljax.runs.encrypted_store import ENDING, write_encrypted
from mtljax.runs.encryption import read_keys
from mtljax.runs.load import TrainedModel, load_run
from mtljax.utils.files import check_output, write_bytes
from mtljax.utils.registry import nearest


class Exported(NamedTuple):
    """Exported files."""

    files: list[Path]
    """Written files."""
    description: dict[str, Any]
    """JSON of `mtljax.exporters.model.describe`."""


def default_output(folder: Path, trained: TrainedModel, to: str) -> Path:
    """Returns the file of an export in the folder of its run."""
    return folder / f"{trained.experiment.name}.{to}"


def export(
    run: TrainedModel | Path | str,
    to: str,
    output: Path | str | None = None,
    *,
    tasks: Sequence[str] = (),
    encrypt: bool = False,
    verify: Path | None = None,
) -> Exported:
    """Exports the best model of a run in one of the formats of `EXPORTS`.

    Args:
      run: Run folder, or the result of `load_run`.
      to: Name of the format.
      output: Output file; None: NAME.FORMAT in the run folder. `.age` is added if encrypted.
      tasks: Names of the tasks to export; (): all.
      encrypt: Encrypt in the age format. Exports of encrypted runs are always encrypted.
      verify: File with a public key, whose owner must have signed the run folder.

    Raises:
      ValueError: A task or the format is unknown, the format does not support the network, the run
        cannot be loaded, a package is missing, the file cannot be written, or a loaded model lacks
        `output`.
    """
    if to not in EXPORTS:
        raise ValueError(f"unknown format {to!r}{nearest(to, EXPORTS)}")
    if isinstance(run, TrainedModel):
        if output is None or verify is not None:
            raise ValueError("a loaded model has no run folder: give output=FILE, and no verify")
        trained, plain = run, Path(output)
    else:
        trained = load_run(run, verify=verify)
        plain = Path(output or default_output(Path(run), trained, to))
    keys = read_keys() if encrypt or trained.experiment.encrypt else None
    ending = "" if keys is None else ENDING
    if ending and plain.suffix == ending:
        plain = plain.with_suffix("")
    path_of = lambda suffix: plain.with_name(f"{plain.name}{suffix}{ending}")
    check_output(path_of(""))
    model = model_of(trained, tasks)
    files = {path_of(suffix): content for suffix, content in EXPORTS[to](model).items()}
    for path, data in files.items():
        if keys is None:
            write_bytes(path, data)
        else:
            write_encrypted(path, data, keys)
    return Exported(list(files), model.description)
