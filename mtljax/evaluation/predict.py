"""Evaluation of trained runs, and predictions for images and image files."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Num, PyTree

from mtljax.build import check_labels, open_source, usable
from mtljax.config import Data
from mtljax.data import Arrays, Source, Split
from mtljax.data.base import first_usable
from mtljax.data.pool import pool_of
from mtljax.data.splitting import SPLITS
from mtljax.evaluation.evaluator import Evaluator
from mtljax.evaluation.predict_files import predict_each
from mtljax.evaluation.predictor import Predictor
from mtljax.parallel import place
from mtljax.runs.load import TrainedModel, load_run, select_tasks
from mtljax.step import eval_step
from mtljax.step.attacks import Attack, attack_batch
from mtljax.step.axis import Axis
from mtljax.step.state import TrainState, example_keys
from mtljax.tasks import Task
from mtljax.tasks.metric import SplitMetrics
from mtljax.utils.registry import nearest
from mtljax.utils.text import error_prefix

JOINED = "join:"
"""Prefix of a source of several data sets."""
ALL = "all"
"""All splits together, for data that was not used in training."""


def evaluate(
    run: TrainedModel | Path | str,
    split: str = "test",
    *,
    source: Source | str | None = None,
    tasks: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
) -> SplitMetrics:
    """Evaluates a trained run on one of its splits, or on other data.

    Args:
      run: Run folder, or the result of `load_run`.
      split: train, validation or test, or all.
      source: Data in memory, as in `train`, or the text of a data source such as `folder:other`;
        None: the experiment's `data.source`.
      tasks: Tasks to evaluate; (): all. The source needs labels of these only.
      labels: Task -> name of its labels in the source, if that differs from the run's.

    Returns:
      {task: {metric: value}} over the full split.

    Raises:
      ValueError: The run cannot be loaded, the split does not exist, or the data is missing.
    """
    trained = restricted(_loaded(run), tasks, labels or {})
    return evaluate_run(trained, split, source=source)["metrics"]


def predict(
    run: TrainedModel | Path | str,
    images: Num[np.ndarray, "B H W C"] | Array | Sequence[Path | str] | Path | str,
) -> dict[str, PyTree[np.ndarray] | list[PyTree[np.ndarray]]]:
    """Predicts every task with a trained run.

    Args:
      run: Run folder, or the result of `load_run`.
      images: [B, H, W, C] in the size and unit of the training images, or image files of any size.

    Returns:
      {task: predictions of all images in the form of labels}, with a leading axis B. Boxes, points
      and maps of an image file are in the pixels of that file; if maps differ in size, they are a
      list.

    Raises:
      ValueError: The run cannot be loaded, an image cannot be read, or the shape is wrong.
    """
    if not isinstance(images, np.ndarray | Array):
        paths = _paths(images)
        trained, results = _loaded(run), []
        for item in predict_each(trained, paths):
            if item.file.error:
                raise ValueError(item.file.error)
            results.append(item.predictions)
        names = [task.name for task in trained.experiment.tasks]
        return {name: _stacked([predictions[name] for predictions in results]) for name in names}
    trained, pixels = _loaded(run), np.asarray(images)
    if pixels.shape[1:] != tuple(trained.shape) or not len(pixels):
        sizes = ", ".join(map(str, trained.shape))
        raise ValueError(f"images must be of shape (B, {sizes}) with B >= 1, not {pixels.shape}")
    predictor = Predictor(trained)
    batches = np.split(pixels, range(predictor.batch_size, len(pixels), predictor.batch_size))
    parts = [predictor.decode(predictor.outputs(batch)) for batch in batches]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *parts)


def _paths(images: object) -> list[Path]:
    """Returns image files; raises ValueError for anything else, such as several inputs."""
    listed = [images] if isinstance(images, str | Path) else images
    if isinstance(listed, Iterable) and not isinstance(listed, Mapping):
        listed = list(listed)
        if listed and all(isinstance(item, str | Path) for item in listed):
            return list(map(Path, listed))
    kind = type(images).__name__
    if isinstance(listed, list):
        kind += f" of {type(listed[0]).__name__}" if listed else " without items"
    raise ValueError(f"images must be an array [B, H, W, C], or paths of image files, not {kind}")


def _stacked(values: list[PyTree[np.ndarray]]) -> PyTree[np.ndarray] | list[PyTree[np.ndarray]]:
    """Returns the values along a new axis, or unchanged if their shapes differ."""
    shapes = {tuple(np.shape(leaf) for leaf in jax.tree.leaves(value)) for value in values}
    if len(shapes) > 1:
        return values
    return jax.tree.map(lambda *leaves: np.stack(leaves), *values)


def _loaded(run: TrainedModel | Path | str) -> TrainedModel:
    return run if isinstance(run, TrainedModel) else load_run(run)


def restricted(
    trained: TrainedModel, names: Sequence[str], labels: Mapping[str, str]
) -> TrainedModel:
    """Returns a run of which only some tasks are evaluated, all for (), with names of their labels.

    Raises:
      ValueError: The run has no such task.
    """
    experiment = trained.experiment
    select_tasks(experiment.tasks, list(labels))
    data = dataclasses.replace(experiment.data, labels={**experiment.data.labels, **labels})
    tasks = select_tasks(experiment.tasks, names)
    return trained._replace(experiment=dataclasses.replace(experiment, tasks=tasks, data=data))


def evaluate_run(
    trained: TrainedModel,
    split: str,
    attack: Attack | None = None,
    source: Source | str | None = None,
) -> dict[str, SplitMetrics]:
    """Evaluates a trained run as `evaluate` does, and under an adversarial attack.

    The examples are read batch by batch.

    Returns:
      {"metrics": metrics}; with an attack also `own`, the metrics of each task under attacks on its
      own loss, and `all`, under attacks on the sum of all losses.

    Raises:
      ValueError: The split does not exist, or the data is missing.
    """
    experiment, examples = trained.experiment, open_split(trained, split, source)
    size = experiment.data.batch_size
    placement = place(size, 1)

    def metrics(*attacked: Task) -> SplitMetrics:
        def change(state: TrainState, batch: PyTree) -> PyTree:
            assert attack is not None
            outputs = lambda image: eval_step.predict(trained.model, state, image)
            keys = example_keys(jax.random.key(0), batch, Axis())
            return attack_batch(attack, attacked, outputs, batch, keys)

        evaluator = Evaluator(
            trained.model,
            experiment.tasks,
            examples,
            size,
            placement,
            keep_on_device=False,
            change=change if attacked else None,
        )
        return evaluator.metrics(trained.state)

    results = {"metrics": metrics()}
    if attack is not None:
        results["own"] = {task.name: metrics(task)[task.name] for task in experiment.tasks}
        results["all"] = metrics(*experiment.tasks)
    return results


def open_split(trained: TrainedModel, split: str, source: Source | str | None = None) -> Split:
    """Opens one split, or all, of a run's data source or of another one; reads no files.

    Raises:
      ValueError: The split does not exist, the data is missing, or a label is invalid.
    """
    if split not in (*SPLITS, ALL):
        raise ValueError(f"unknown split {split!r}{nearest(split, (*SPLITS, ALL))}")
    experiment = trained.experiment
    if isinstance(source, str):
        labels = _labels_of(experiment.data, source)
        data = dataclasses.replace(
            experiment.data, source=source, labels=labels, drop=None, fold=None
        )
        experiment, source = dataclasses.replace(experiment, data=data), None
    opened = open_source(experiment, source, () if split == ALL else (split,))
    filled = [name for name, part in opened.splits().items() if len(part)]
    needed = filled if split == ALL else [split]
    opened = usable(experiment, opened, needed)
    if opened.folds and opened.folds != trained.folds:
        raise ValueError(
            f"the examples of fold {experiment.data.fold} are not those of the training: the data "
            "has changed, or has examples with labels of other tasks only, as in comparisons"
        )
    shape = np.shape(first_usable(opened.splits()[needed[0]])["image"])
    if experiment is not trained.experiment and shape != tuple(trained.shape):
        height, width, channels = trained.shape
        raise ValueError(
            f"images of shape {shape} in {experiment.data.source}; the model takes {trained.shape}:"
            f" add size=({height},{width}) and channels={channels} to the source"
        )
    for name, examples in opened.splits().items():
        if isinstance(examples, Arrays) and split in (name, ALL):
            with error_prefix(f"source {experiment.data.source!r}, {name} split"):
                check_labels(experiment.tasks, examples)
    return pool_of(opened) if split == ALL else opened.splits()[split]


def _labels_of(data: Data, source: str) -> dict[str, str]:
    """Returns the names of labels in another source: one domain of a joined one, or any other."""
    is_domain = data.source.startswith(JOINED) and not source.startswith(JOINED)
    return {
        task: key.partition("/")[2] if is_domain and "/" in key else key
        for task, key in data.labels.items()
    }
