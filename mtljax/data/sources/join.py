"""Source of several domains as one partially labeled data set."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Int, PyTree

from mtljax.data.base import (
    Batch,
    Example,
    LabelRequest,
    Source,
    Split,
    faults_of,
    first_usable,
    membership_of,
    place_of,
)
from mtljax.data.class_names import absent_class
from mtljax.data.files.jpeg import Decoder
from mtljax.data.lazy import source_of_splits
from mtljax.data.membership import Membership
from mtljax.data.pipeline import read_batch
from mtljax.data.splitting import SPLITS
from mtljax.tasks import Task
from mtljax.tasks.classes import ClassTask
from mtljax.utils.text import error_prefix, listed


def join(
    sources: dict[str, str],
    proportions: dict[str, float] | None = None,
    *,
    requests: Sequence[LabelRequest],
    decoder: Decoder = "turbo",
) -> Source:
    """Domains as one data set: labels `DOMAIN/LABEL` of one domain, or `LABEL` of all domains.

    An image carries the labels of its domain; all other labels are missing. During training,
    domains are sampled in the requested proportions: an epoch repeats examples of some domains and
    omits none. Validation and test have every example once.

    Args:
      sources: Domain -> source: `join:{'art':'class_folders:Art','clip':'class_folders:Clipart'}`.
      proportions: Domain -> weight of its training examples; if omitted, their number.
    """
    from mtljax.data.sources import make_source  # not at the top: its dict has this function

    per_domain: dict[str, list[LabelRequest]] = {domain: [] for domain in sources}
    for task, key in requests:
        domain, slash, label = key.partition("/")
        if slash and domain not in sources:
            request = f"task {task.name!r} requests label {key!r}"
            raise ValueError(f"source join: {request}, but the domains are {', '.join(sources)}")
        for target in [domain] if slash else sources:
            per_domain[target].append(LabelRequest(task, label if slash else key))
    opened = {}
    for domain, text in sources.items():
        if requests and not per_domain[domain]:
            raise ValueError(
                f"source join: no task requests a label of {domain}: leave it out, or request "
                f"'{domain}/LABEL', or 'LABEL' of all domains, in data.labels"
            )
        with error_prefix(f"source join, domain {domain}"):
            needed = [name for name in SPLITS if name != "train"]
            opened[domain] = make_source(text, per_domain[domain], needed, decoder)
    shared = [request for request in requests if "/" not in request.key]
    _require_training(sources, per_domain, opened, shared, decoder)
    return join_sources(opened, proportions)


def _require_training(
    sources: Mapping[str, str],
    requests: Mapping[str, Sequence[LabelRequest]],
    opened: Mapping[str, Source],
    shared: Sequence[LabelRequest],
    decoder: Decoder,
) -> None:
    """Raises ValueError if training data lacks anything but a class that a domain has.

    Args:
      shared: Requests of labels of all domains, whose classes may be in one of them only.
    """
    from mtljax.data.sources import make_source

    lacking = [domain for domain, source in opened.items() if "train" in source.unusable]
    names: dict[str, set[str]] = {task.name: set() for task, _ in shared}
    for domain in opened if lacking else ():
        anew = [
            LabelRequest(type(task)(name=task.name), key)
            if isinstance(task, ClassTask) and task.class_names and task.name in names
            else LabelRequest(task, key)
            for task, key in requests[domain]
        ]
        tasks = opened[domain].tasks
        if domain in lacking:
            with error_prefix(f"source join, domain {domain}"):
                tasks = make_source(sources[domain], anew, decoder=decoder).tasks
        for task in tasks:
            if task.name in names:
                names[task.name].update(getattr(task, "class_names", ()))
    for task, _ in shared if lacking else ():
        absent = absent_class("source join: no domain", task, sorted(names[task.name]), "class")
        if absent:
            raise ValueError(absent.replace("no domain has no", "no domain has"))


def join_sources(
    sources: Mapping[str, Source], proportions: Mapping[str, float] | None = None
) -> Source:
    """Joins sources, with images of one size and range, into one with all labels; see `join`."""
    if not sources:
        raise ValueError("source join: at least one domain is required")
    if proportions is not None and set(proportions) != set(sources):
        names = f"proportions of {', '.join(proportions)}; must be of {', '.join(sources)}"
        raise ValueError(f"source join: {names}")
    if proportions is not None and not all(0 < p < np.inf for p in proportions.values()):
        raise ValueError(f"source join: proportions must be > 0, not {dict(proportions)}")
    joined: dict[str, Split] = {}
    for name in ("train", "validation", "test"):
        splits = {domain: source.splits()[name] for domain, source in sources.items()}
        joined[name] = JoinedSplit(splits, proportions if name == "train" else None)
    ranges = {(source.low, source.high) for source in sources.values()}
    if len(ranges) > 1:
        raise ValueError(f"source join: images of different ranges, {sorted(ranges)}")
    notes = tuple(note for source in sources.values() for note in source.notes)
    fixed = [source.fixed_splits for source in sources.values() if source.fixed_splits]
    if proportions is not None:
        fixed.append("the proportions of join repeat training examples")
    joined_source = source_of_splits(joined, *ranges.pop(), tasks=_joined_tasks(sources))
    return dataclasses.replace(joined_source, notes=notes, fixed_splits="; ".join(fixed))


def _joined_tasks(sources: Mapping[str, Source]) -> tuple[Task, ...]:
    """Returns the tasks of all domains; those of one name must have the same classes."""
    joined: dict[str, tuple[str, Task]] = {}
    for domain, source in sources.items():
        for task in source.tasks:
            first, other = joined.setdefault(task.name, (domain, task))
            if task != other:
                raise ValueError(
                    f"source join: task {task.name!r} has other classes in {domain} "
                    f"({_classes(task)}) than in {first} ({_classes(other)}); set class_names"
                )
    return tuple(task for _, task in joined.values())


def _classes(task: Task) -> str:
    """Returns the classes of a task for messages."""
    return listed(getattr(task, "class_names", ())) or str(getattr(task, "num_classes", "?"))


def _index(sizes: Sequence[int], weights: Sequence[float] | None) -> Int[np.ndarray, "N 2"]:
    """Returns the domain and the row of each example; no example is omitted."""
    counts = list(sizes)
    if weights is not None:
        total = max(size / weight for size, weight in zip(sizes, weights, strict=True))
        counts = [round(total * weight) for weight in weights]
    domain = np.repeat(np.arange(len(sizes)), counts)
    rows = [np.arange(count) % size for size, count in zip(sizes, counts, strict=True)]
    return np.stack([domain, np.concatenate(rows)], 1).astype(np.int32)


class JoinedSplit:
    """Splits of several domains as one; a label that a domain lacks is zero and marked missing."""

    def __init__(self, splits: Mapping[str, Split], proportions: Mapping[str, float] | None = None):
        """Joins a split of each domain; without `proportions`, every example is read once."""
        first = {domain: first_usable(split) for domain, split in splits.items()}
        shapes = {domain: np.shape(example["image"]) for domain, example in first.items()}
        if len(set(shapes.values())) > 1:
            sizes = ", ".join(f"{domain} {shape}" for domain, shape in shapes.items())
            raise ValueError(
                f"source join: images of different sizes ({sizes}); give each source "
                "size=(height,width)"
            )
        self.splits = tuple(splits.values())
        weights = None if proportions is None else [proportions[domain] for domain in splits]
        self.index = _index([len(split) for split in self.splits], weights)
        self._blank: dict[str, PyTree] = {}
        for example in first.values():
            for name, label in example["labels"].items():
                self._blank.setdefault(name, jax.tree.map(np.zeros_like, label))

    def changed(self, change: Callable[[Split], Split]) -> "JoinedSplit":
        """Returns the split with `change` applied to the split of each domain."""
        joined = copy.copy(self)
        joined.splits = tuple(map(change, self.splits))
        return joined

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Example:
        return jax.tree.map(lambda x: x[0], self.take(np.asarray([index])))

    def place(self, row: int) -> str:
        """Returns the file and row of an example, "" if unknown."""
        domain, position = self.index[row]
        return place_of(self.splits[domain], int(position))

    def membership(self, row: int) -> Membership:
        """Returns the group and the stratum of an example, which differ between domains."""
        domain, position = map(int, self.index[row])
        names = membership_of(self.splits[domain], position)
        return Membership(*(f"{domain}/{name}" if name else "" for name in names))

    def faults(self) -> Mapping[int, str]:
        """Returns the examples that are known to be unusable."""
        known = [faults_of(split) for split in self.splits]
        return {
            row: known[domain][position]
            for row, (domain, position) in enumerate(self.index.tolist() if any(known) else ())
            if position in known[domain]
        }

    def take(self, rows: np.ndarray) -> Batch:
        """Returns the examples at `rows`, read per domain."""
        index = self.index[rows]
        batches, positions = [], []
        for domain in np.unique(index[:, 0]):
            positions.append(np.flatnonzero(index[:, 0] == domain))
            batch = read_batch(self.splits[domain], index[positions[-1], 1])
            batches.append(self._with_all_labels(batch))
        order = np.argsort(np.concatenate(positions))
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *batches)

    def _with_all_labels(self, batch: Batch) -> Batch:
        """Adds the labels of other domains, marked missing."""
        count = len(batch["image"])
        zeros = lambda x: np.zeros((count, *np.shape(x)), x.dtype)
        labels, present = {}, {}
        for name, blank in self._blank.items():
            exists = name in batch["labels"]
            labels[name] = batch["labels"][name] if exists else jax.tree.map(zeros, blank)
            present[name] = batch["present"][name] if exists else np.zeros(count, bool)
        return {"image": batch["image"], "labels": labels, "present": present}
