"""Base class of tasks with classes, whose number and names may be those of the data."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, Self

import jax
import numpy as np
from jaxtyping import Int, Num

from mtljax.tasks import checks, parsing
from mtljax.tasks.base import Task
from mtljax.tasks.warps import Warp
from mtljax.utils.text import listed

SIDED = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)
"""Word in the name of a class that is another class in a mirror image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassTask(Task):
    """Task with `num_classes` classes."""

    num_classes: int = 0
    """Number of classes; 0: that of `class_names`, or of the data."""
    class_names: tuple[str, ...] = ()
    """Names of the classes in tables and reports; if empty, those of the data, or indices."""

    mirror: Literal["keep"] | tuple[tuple[str, str], ...] | None = None
    """Pairs of classes that a mirror image exchanges, by name or index, such as (("turn left",
    "turn right"),); `keep`: none. Flips need it if names of classes have the word left or right."""

    former = {"mirror": "keep"}
    fewest_classes: ClassVar[int] = 1
    """Smallest allowed number of classes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.num_classes:
            object.__setattr__(self, "num_classes", len(self.class_names))
        if self.num_classes:
            checks.require_classes(self, self.fewest_classes)
            _ = self._mirrored  # checks the pairs

    @property
    def derived(self) -> tuple[str, ...]:
        return () if self.num_classes else ("num_classes",)

    def with_classes(self, names: Sequence[str]) -> Self:
        if self.class_names:
            return self
        if self.num_classes not in (0, len(names)):
            raise ValueError(
                f"task {self.name!r} has num_classes={self.num_classes}, but the data has "
                f"{len(names)} classes: {listed(names, 100)}"
            )
        return dataclasses.replace(self, num_classes=len(names), class_names=tuple(names))

    def check_mirror(self, *, vertical: bool) -> None:
        sided = [name for name in self.class_names if SIDED.search(_words(name))]
        if self.mirror is None and sided:
            pairs = tuple(_pairs(self.class_names)) or (("A left", "A right"),)
            raise ValueError(
                f"task {self.name!r}: class {sided[0]!r} may be another one in a mirror image: set "
                f"mirror={pairs}, or mirror='keep' if it is not, or leave out flip"
            )

    def in_mirror(self, classes: Num[Any, "..."], warp: Warp) -> Any:
        """Returns class indices, or other values as they are, in the image after a warp."""
        changed = classes
        if warp.mirrored:
            for index, other in enumerate(self._mirrored):
                if index != other:
                    changed = warp.xp.where(classes == index, other, changed)
        return changed

    @property
    def _mirrored(self) -> Int[np.ndarray, " C"]:
        """For each class, the index of its mirror image."""
        other = np.arange(self.num_classes)
        for pair in () if self.mirror in (None, "keep") else self.mirror:
            rule = f"pairs of different classes of {self.num_classes}, each in one pair"
            known = [parsing.class_index(name, self.class_names) for name in pair]
            valid = len(set(known)) == 2 and all(0 <= i < self.num_classes for i in known)
            checks.require_setting(self, "mirror", valid and (other[known] == known).all(), rule)
            other[known] = known[::-1]
        return other

    def resolve(self, labels: Any) -> Self:
        if self.num_classes:
            return self
        values = np.concatenate([self.label_values(label) for label in _examples(labels)])
        highest = int(values.max(initial=0))
        return dataclasses.replace(self, num_classes=max(highest + 1, self.fewest_classes))


def _words(name: str) -> str:
    """Returns a name with blanks between the words of LeftArm."""
    return re.sub(r"(?<=[a-z])[A-Z]", r" \g<0>", name)


def _pairs(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields the pairs of names that differ by left and right."""
    by_side = {re.sub("right", "left", name, flags=re.IGNORECASE).lower(): name for name in names}
    for name in names:
        other = by_side.get(name.lower())
        if other not in (None, name) and SIDED.search(_words(name)):
            yield name, other


def _examples(labels: Any) -> Sequence[Any]:
    """Returns the labels of a batch one by one."""
    count = len(jax.tree.leaves(labels)[0])
    return [jax.tree.map(lambda x, i=i: x[i], labels) for i in range(count)]
