"""Preparation of data sets: a download, once, after which training needs no network."""

import os
from collections.abc import Callable
from typing import Any

import jax

from mtljax.data.sources import HIDDEN, SOURCES
from mtljax.utils.registry import choose, nearest


def prepare_tfds(name: str, data_dir: str | None = None, **_: Any) -> str:
    """Downloads and prepares a TensorFlow Dataset unless it is prepared; returns a message."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR")
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record", try_gcs=False)
    except DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)  # community ones need a network
        raise ValueError(f"tfds has no data set {name!r}{nearest(name, known)}") from None
    if builder.is_prepared():
        return f"tfds {name} is prepared already, in {builder.data_path}"
    try:
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(download_config=config)
    except ImportError as error:
        raise ValueError(
            f"preparing tfds {name} needs the package {error.name}: pip install 'mtljax[prepare]' "
            "(training does not need it)"
        ) from error
    except (OSError, RuntimeError, AssertionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ValueError(f"tfds {name} cannot be prepared: {reason}") from error
    return f"tfds {name} is prepared, in {builder.data_path}"


PREPARE: dict[str, Callable[..., str]] = {"tfds": prepare_tfds}
"""Source -> function of its arguments that prepares its data and returns a message."""


def prepare(source: str) -> list[str]:
    """Prepares the data of a source and of the sources in its arguments; returns messages."""
    choice = choose("source", source, SOURCES, hidden=HIDDEN)
    results = [PREPARE[choice.name](**choice.arguments)] if choice.name in PREPARE else []
    for value in jax.tree.leaves(choice.arguments):
        if isinstance(value, str) and value.partition(":")[0] in SOURCES:
            results += prepare(value)
    return results
