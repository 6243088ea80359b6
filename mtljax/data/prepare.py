"""Getting data ready that is not: downloads, once, what training then reads without a network."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mtljax.data.sources import SOURCES
from mtljax.utils.registry import choose, nearest


def prepare_tfds(name: str, data_dir: str | None = None, **_: Any) -> str:
    """Downloads and prepares a TensorFlow Dataset, unless that is done.

    Returns:
      What was done, for people.

    Raises:
      ValueError: There is no such data set, it needs a package, or it cannot be downloaded.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    where = data_dir or os.environ.get("TFDS_DATA_DIR")
    try:
        builder = tfds.builder(name, data_dir=where, file_format="array_record", try_gcs=False)
    except DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)  # with them it asks the network
        raise ValueError(f"tfds has no data set {name!r}{nearest(name, known)}") from None
    if builder.is_prepared():
        return f"tfds {name} is prepared already, in {builder.data_path}"
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    except ImportError as error:
        raise ValueError(
            f"preparing tfds {name} needs the package {error.name}: pip install 'mtljax[prepare]' "
            "(training will not need it)"
        ) from error
    except (OSError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"tfds {name} cannot be prepared: {type(error).__name__}: {reason}"
        ) from error
    return f"tfds {name} is prepared, in {builder.data_path}"


PREPARE: dict[str, Callable[..., str]] = {
    "tfds": prepare_tfds,
}
"""Source -> function of its arguments that gets its data ready and says what it did."""


def prepare(source: str) -> list[str]:
    """Gets a source ready, and the sources in it; what was done, a line each.

    Args:
      source: As in `data.source`.

    Raises:
      ValueError: There is no such source, or it cannot be got ready.
    """
    choice = choose("source", source, SOURCES, hidden=("wanted",))
    done = [PREPARE[choice.name](**choice.arguments)] if choice.name in PREPARE else []
    for text in _words(choice.arguments.values()):
        if text.partition(":")[0] in SOURCES:
            done += prepare(text)
    return done


def _words(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _words(value.values())
