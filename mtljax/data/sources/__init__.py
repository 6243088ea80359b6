"""Data sources, one file each."""

import inspect
from collections.abc import Callable, Sequence

from mtljax.data.base import LabelRequest, Source, select_labels
from mtljax.data.files.jpeg import Decoder, require_decoder
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
`name:argument=value`, except those in `HIDDEN`."""
HIDDEN = ("requests", "decoder")
"""Arguments that an experiment sets. requests: the labels that the tasks need; a source with this
argument names its labels after the tasks, the labels of other sources are renamed. decoder: the
decoder of JPEG files."""


def make_source(
    text: str,
    requests: Sequence[LabelRequest],
    needed: Sequence[str] = SPLITS,
    decoder: Decoder = "turbo",
) -> Source:
    """Returns the source `name:argument=value` with the requested labels, named after their tasks.

    Args:
      needed: Splits that must have examples, and labels to learn from.
      decoder: Decoder of JPEG files.

    Raises:
      ValueError: The source or a label is unknown, or the data is missing or invalid.
    """
    choice = choose("source", text, SOURCES, hidden=HIDDEN)
    require_decoder(decoder)
    parameters = inspect.signature(choice.factory).parameters
    given = {"requests": tuple(requests), "decoder": decoder}
    source = choice.build(**{name: given[name] for name in HIDDEN if name in parameters})
    if not any(map(len, source.splits().values())):
        raise ValueError(f"source {choice.name!r} has no examples")
    for name in needed:
        if name in source.unusable:
            raise ValueError(source.unusable[name])
        if not len(source.splits()[name]):
            raise ValueError(f"source {choice.name!r}: its {name} split is empty")
    return source if "requests" in parameters else select_labels(source, requests, choice.name)


__all__ = ["HIDDEN", "SOURCES", "make_source"]
