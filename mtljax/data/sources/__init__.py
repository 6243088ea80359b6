"""Data sources. One file each."""

import inspect
from collections.abc import Callable, Sequence

from mtljax.data.base import Source, Wanted, select
from mtljax.data.sources.arrays import arrays
from mtljax.data.sources.class_folders import class_folders
from mtljax.data.sources.digits import digits
from mtljax.data.sources.elpv import elpv
from mtljax.data.sources.folder import folder
from mtljax.data.sources.idx import idx
from mtljax.data.sources.join import join
from mtljax.data.sources.multi import multi
from mtljax.data.sources.npy_folders import npy_folders
from mtljax.data.sources.scenes import scenes
from mtljax.data.sources.tfds import tfds
from mtljax.utils.registry import choose

SOURCES: dict[str, Callable[..., Source]] = {
    "digits": digits,
    "elpv": elpv,
    "arrays": arrays,
    "idx": idx,
    "folder": folder,
    "class_folders": class_folders,
    "npy_folders": npy_folders,
    "scenes": scenes,
    "tfds": tfds,
    "multi": multi,
    "join": join,
}
"""Name -> function that loads the data.

Its arguments are the user's, as in `name:argument=value`; but one called `wanted` is what the tasks
want, for a source that makes labels of what it finds. Such a source names its labels after the
tasks; what the others have is renamed.
"""


def make_source(text: str, wanted: Sequence[Wanted]) -> Source:
    """The source that is called so, with the labels that are wanted, named after their tasks.

    Raises:
      ValueError: There is no such source, no such label in it, or its data is not there.
    """
    choice = choose("source", text, SOURCES, hidden=("wanted",))
    reads = "wanted" in inspect.signature(choice.make).parameters
    source = choice.made(wanted=tuple(wanted)) if reads else choice.made()
    for part, split in source.parts().items():
        if not len(split):
            raise ValueError(f"source {choice.name!r}: its {part} split is empty")
    return source if reads else select(source, wanted, choice.name)


__all__ = ["SOURCES", "make_source"]
