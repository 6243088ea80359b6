"""Several domains as one partially labelled stream."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mtljax.data.base import Source, Split, Wanted
from mtljax.data.pipeline import read
from mtljax.data.reading import sampled_moments


def join(
    sources: dict[str, str],
    proportions: dict[str, float] | None = None,
    *,
    wanted: Sequence[Wanted],
) -> Source:
    """Several sources as one; a task's label is in one of them, `DOMAIN/LABEL`, or in all, `LABEL`.

    An image has the labels of its own domain, and the others are missing. In training, domains come
    in the proportions asked for, by taking the examples of some more than once in an epoch; none is
    left out. Validation and test have every example once.

    Args:
      sources: Domain -> source: `join:{'art':'class_folders:Art','clip':'class_folders:Clipart'}`.
      proportions: Domain -> share of the training examples, of any sum; as there are examples, if
        left out.
      wanted: What the tasks want.
    """
    from mtljax.data.sources import make_source  # which has this one in its dict

    asked: dict[str, list[Wanted]] = {domain: [] for domain in sources}
    for task, key in wanted:
        domain, slash, own = key.partition("/")
        if slash and domain in asked:
            asked[domain].append(Wanted(task, own))
        elif slash:
            raise ValueError(
                f"source join: task {task.name!r} wants label {key!r}, but the domains are "
                f"{', '.join(asked)}"
            )
        else:
            for items in asked.values():
                items.append(Wanted(task, key))
    made = {domain: make_source(text, asked[domain]) for domain, text in sources.items()}
    return joined(made, proportions)


def joined(sources: Mapping[str, Source], proportions: Mapping[str, float] | None = None) -> Source:
    """Sources as one, whose labels are those of all; see `join`.

    Raises:
      ValueError: They do not go together.
    """
    if not sources:
        raise ValueError("source join: no domain")
    if proportions is not None and set(proportions) != set(sources):
        raise ValueError(
            f"source join: proportions of {', '.join(proportions)}; must be of {', '.join(sources)}"
        )
    if proportions is not None and not all(0 < p < np.inf for p in proportions.values()):
        raise ValueError(f"source join: proportions must be > 0, not {dict(proportions)}")
    domains = tuple(sources)
    parts = {}
    for part in ("train", "validation", "test"):
        splits = tuple(getattr(source, part) for source in sources.values())
        shares = None
        if proportions is not None and part == "train":
            shares = [proportions[domain] for domain in domains]
        counts = _counts([len(split) for split in splits], shares)
        parts[part] = Joined(splits, domains, _slots([len(s) for s in splits], counts))
    mean, std = sampled_moments(parts["train"])
    ranges = {(source.low, source.high) for source in sources.values()}
    if len(ranges) > 1:
        raise ValueError(f"source join: images of different ranges, {sorted(ranges)}")
    return Source(**parts, mean=mean, std=std, low=min(ranges)[0], high=min(ranges)[1])


def _counts(sizes: Sequence[int], shares: Sequence[float] | None) -> list[int]:
    """How many examples of each domain there are, so that none is left out."""
    if shares is None:
        return list(sizes)
    total = max(size / share for size, share in zip(sizes, shares, strict=True))
    return [round(total * share) for share in shares]


def _slots(sizes: Sequence[int], counts: Sequence[int]) -> np.ndarray:
    """[N, 2]: domain and example of each."""
    domain = np.repeat(np.arange(len(sizes)), counts)
    rows = [np.arange(count) % size for size, count in zip(sizes, counts, strict=True)]
    return np.stack([domain, np.concatenate(rows)], 1).astype(np.int32)


class Joined:
    """Splits as one; what a domain has no label for is zero and not present."""

    def __init__(self, splits: Sequence[Split], domains: Sequence[str], slots: np.ndarray):
        """Args: splits, one per domain; domains, their names; slots [N, 2], domain and example of
        each.

        Raises:
          ValueError: Their images are not of one size.
        """
        first = [split[0] for split in splits]
        shapes = [np.shape(example["image"]) for example in first]
        if len(set(shapes)) > 1:
            told = ", ".join(f"{d} {s}" for d, s in zip(domains, shapes, strict=True))
            raise ValueError(f"source join: images of different sizes ({told}); give them one size")
        self.splits, self.slots = tuple(splits), slots
        self._blank: dict[str, Any] = {}
        for example in first:
            for name, label in example["labels"].items():
                self._blank.setdefault(name, jax.tree.map(np.zeros_like, label))

    def __len__(self) -> int:
        return len(self.slots)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return jax.tree.map(lambda x: x[0], self.take(np.asarray([index])))

    def take(self, rows: np.ndarray) -> dict[str, Any]:
        """The examples at `rows`, each domain's read together."""
        slots = self.slots[rows]
        parts, places = [], []
        for domain in np.unique(slots[:, 0]):
            places.append(np.flatnonzero(slots[:, 0] == domain))
            parts.append(self._completed(read(self.splits[domain], slots[places[-1], 1])))
        order = np.argsort(np.concatenate(places))
        return jax.tree.map(lambda *part: np.concatenate(part)[order], *parts)

    def _completed(self, batch: dict[str, Any]) -> dict[str, Any]:
        """With all labels, those of other domains marked missing."""
        count = len(batch["image"])
        labels, present = {}, {}
        for name, blank in self._blank.items():
            known = name in batch["labels"]
            many = lambda x: np.zeros((count, *np.shape(x)), x.dtype)
            labels[name] = batch["labels"][name] if known else jax.tree.map(many, blank)
            present[name] = batch["present"][name] if known else np.zeros(count, bool)
        return {"image": batch["image"], "labels": labels, "present": present}
