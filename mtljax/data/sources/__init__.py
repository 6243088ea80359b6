"""Data sources, one file each."""

import inspect
from collections.abc import Callable, Sequence

from mtljax.data.base import LabelRequest, Source, select_labels
from mtljax.data.sources.arrays import arrays
from mtljax.data.sources.class_folders import class_folders
from mtljax.data.sources.coco import coco
from mtljax.data.sources.digits import digits
from mtljax.data.sources.elpv import elpv
from mtljax.data.sources.folder import folder
from mtljax.data.sources.idx import idx
from mtljax.data.sources.join import join
from mtljax.data.sources.multi import multi
from mtljax.data.sources.npy_folders import npy_folders
from mtljax.data.sources.scenes import scenes
from mtljax.data.sources.tfds import tfds
from mtljax.data.sources.voc import voc
from mtljax.data.sources.yolo import yolo
from mtljax.data.splitting import SPLITS
from mtljax.utils.registry import choose

SOURCES: dict[str, Callable[..., Source]] = {
    "digits": digits,
    "elpv": elpv,
    "arrays": arrays,
    "idx": idx,
    "folder": folder,
    "class_folders": class_folders,
    "coco": coco,
    "yolo": yolo,
    "voc": voc,
    "npy_folders": npy_folders,
    "scenes": scenes,
    "tfds": tfds,
    "multi": multi,
    "join": join,
}
"""Name -> function that loads the data. Its arguments are set by the user, as in
`name:argument=value`, except `requests`: the labels that the tasks need. A source with this
argument names its labels after the tasks; the labels of other sources are renamed."""


def make_source(
    text: str, requests: Sequence[LabelRequest], needed: Sequence[str] = SPLITS
) -> Source:
    """Returns the source `name:argument=value` with the requested labels, named after their tasks.

    Args:
      needed: Splits that must have examples, and labels to learn from.

    Raises:
      ValueError: The source or a label is unknown, or the data is missing or invalid.
    """
    choice = choose("source", text, SOURCES, hidden=("requests",))
    takes_requests = "requests" in inspect.signature(choice.factory).parameters
    source = choice.build(requests=tuple(requests)) if takes_requests else choice.build()
    if not any(map(len, source.splits().values())):
        raise ValueError(f"source {choice.name!r} has no examples")
    for name in needed:
        if name in source.unusable:
            raise ValueError(source.unusable[name])
        if not len(source.splits()[name]):
            raise ValueError(f"source {choice.name!r}: its {name} split is empty")
    return source if takes_requests else select_labels(source, requests, choice.name)


__all__ = ["SOURCES", "make_source"]
