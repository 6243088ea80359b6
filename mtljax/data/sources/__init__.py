"""Data sources. One file each."""

import inspect
from collections.abc import Callable, Sequence

from mtljax.choice import choose
from mtljax.data.base import Source, Wanted, select
from mtljax.data.sources.arrays import arrays
from mtljax.data.sources.digits import digits
from mtljax.data.sources.idx import idx
from mtljax.data.sources.multi import multi

SOURCES: dict[str, Callable[..., Source]] = {
    "digits": digits,
    "arrays": arrays,
    "idx": idx,
    "multi": multi,
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
    if "wanted" in inspect.signature(choice.make).parameters:
        return choice.made(wanted=tuple(wanted))
    return select(choice.made(), wanted, choice.name)


__all__ = ["SOURCES", "make_source"]
