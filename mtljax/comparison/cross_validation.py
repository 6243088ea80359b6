"""Cross-validation in a comparison: the same folds for every method, baseline, candidate and seed.

All members read the data with the labels of all tasks, since sources may leave out examples without
a label of the requested tasks, so that the folds of a single-task network would differ.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mtljax.build import load_source, open_source
from mtljax.comparison.plan import FOLDER, Method
from mtljax.config import Experiment
from mtljax.data import Source
from mtljax.data.base import LabelRequest, select_labels
from mtljax.data.folds import Fold, digest, fold_table, folds_of, require_same_folds
from mtljax.training.setup import require_unseen_fold
from mtljax.utils.bounded_reading import read_text
from mtljax.utils.files import write_text


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """Division of an experiment's data into folds."""

    experiment: Experiment
    """Base experiment, with all tasks."""
    total: int
    """Number of folds."""
    table: str
    """CSV with the fold of each example."""

    @property
    def folds(self) -> tuple[Fold, ...]:
        """Folds in order."""
        return tuple(Fold(number, self.total) for number in range(1, self.total + 1))

    def with_all_tasks(self, experiment: Experiment) -> Experiment:
        """Returns a member's experiment with the base's other tasks, to read its data."""
        tasks = {task.name: task for task in (*self.experiment.tasks, *experiment.tasks)}
        labels = {**self.experiment.data.labels, **experiment.data.labels}
        data = dataclasses.replace(experiment.data, labels=labels)
        return dataclasses.replace(experiment, tasks=tuple(tasks.values()), data=data)

    def load(self, experiment: Experiment) -> Source:
        """Loads the data of a member's fold, with the labels of all tasks.

        Raises:
          ValueError: The data is unusable, or its folds are not those of the base experiment.
        """
        source = load_source(self.with_all_tasks(experiment))
        if source.folds != digest(self.table):
            raise ValueError(
                f"the folds of {experiment.data.source} are not those of "
                f"{self.experiment.data.source}: all methods must be compared on the same examples"
            )
        return source

    @staticmethod
    def file(workdir: Path, total: int) -> Path:
        """Returns the path of the table in the folder of a comparison."""
        return workdir / f"folds-{total}.csv"

    def write(self, workdir: Path) -> None:
        """Writes the table, or checks that the folder has the same one.

        Raises:
          ValueError: The folder has results of other folds.
        """
        (workdir / FOLDER).mkdir(parents=True, exist_ok=True)  # marks a comparison folder
        file = self.file(workdir, self.total)
        if file.exists():
            require_same_folds(str(workdir), read_text(file), self.table)
        else:
            write_text(file, self.table)


def cross_validation(
    experiment: Experiment, total: int, methods: Sequence[Method]
) -> CrossValidation:
    """Divides an experiment's data into folds.

    Raises:
      ValueError: An invalid number, data that cannot be divided, or a method that has learned test
        examples already.
    """
    if total < 2:
        raise ValueError(
            f"--folds must be >= 2, not {total}; leave it out to use the data's splits"
        )
    for candidate in (c for method in methods for c in method.candidates):
        if candidate.experiment.data.fold is not None:
            raise ValueError("--folds trains all folds; leave out data.fold")
        for number in (1, 2):  # weights that one fold may use, another may not
            require_unseen_fold(candidate.member(experiment.seed, Fold(number, total)))
    data = dataclasses.replace(experiment.data, drop=None)  # which leaves examples out afterwards
    source = open_source(dataclasses.replace(experiment, data=data))
    return CrossValidation(experiment, total, fold_table(*folds_of(source, total)))


def labels_of(source: Source, experiment: Experiment) -> Source:
    """Returns the source with the labels of the experiment's tasks only."""
    resolved = {task.name: task for task in source.tasks}
    requests = [LabelRequest(resolved.get(t.name, t), t.name) for t in experiment.tasks]
    return select_labels(source, requests, experiment.data.source)
