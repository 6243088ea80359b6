"""Labels that are probably wrong, going by networks that have not learned from them, by cleanlab.

The experiment's own network is trained several times, each time without a part of the examples,
which it then predicts.

References:
  Northcutt et al., 2021, arXiv:1911.00068 (confident learning); Zhou et al., 2023,
  arXiv:2305.16583 (regression); Lad and Mueller, 2023, arXiv:2307.05080 (segmentation)
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from mtljax.config import Experiment
from mtljax.data.base import Source
from mtljax.data.pool import Place, Pool
from mtljax.data.reading import sampled_moments
from mtljax.evaluation.predictions import Predictions
from mtljax.screening.findings import Finding
from mtljax.tasks import Classification, Regression, Segmentation, Task
from mtljax.training.programs import Programs

FENCE = 6.0
"""Interquartile ranges beyond the upper quartile of the errors that make a number improbable."""
LEAST = 0.1
"""Score of a segmentation below which cleanlab takes it for wrong."""


def out_of_fold(
    experiment: Experiment, source: Source, places: Sequence[Place], folds: int
) -> Iterator[tuple[list[Place], Predictions]]:
    """Trains once for each fold, without it, and predicts it.

    Yields:
      (the examples of the fold, what the network says of them).
    """
    order = np.random.default_rng(experiment.seed).permutation(len(places))
    pool = Pool(source.parts(), places)
    mean, std = sampled_moments(pool)  # not those of broken images
    source = dataclasses.replace(source, mean=mean, std=std)
    size = len(places) - -(-len(places) // folds)  # the same of each, so that one program fits all
    for fold in range(folds):
        held, rest = order[fold::folds], np.delete(order, np.s_[fold::folds])[:size]
        part = dataclasses.replace(
            source, train=pool.at(rest), validation=pool.at(held), test=pool.at(held)
        )
        yield [places[int(row)] for row in held], _trained(experiment, part, len(held))


def _trained(experiment: Experiment, source: Source, count: int) -> Predictions:
    programs = Programs(experiment, source=source)
    state = programs.join([programs.create(experiment.seed)])
    runner = programs.feed([experiment.seed], 0)
    for step in range(0, experiment.steps, experiment.log_every):
        state, _ = runner.run(state, step, min(experiment.log_every, experiment.steps - step))
    return programs.test.metrics_and_predictions(state, most=count)[1]


def improbable(task: Task, places: Sequence[Place], predictions: Predictions) -> Iterator[Finding]:
    """The examples of a task whose labels the predictions speak against."""
    judge = next((judge for kind, judge in JUDGES.items() if isinstance(task, kind)), None)
    rows = np.flatnonzero(predictions.present[task.name])
    if judge is None or not len(rows):
        return
    pick = lambda tree: jax.tree.map(lambda x: np.asarray(x)[rows], tree)
    outputs, labels = pick(predictions.outputs[task.name]), pick(predictions.labels[task.name])
    decoded = jax.tree.map(np.asarray, task.decode(outputs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrong = judge(task, outputs, labels)
    for i in wrong:
        said, found = task.text(labels[i]), task.text(decoded[i])
        yield Finding(places[rows[i]], "label", f"{task.name}: {said}; predicted {found}")


def _classes(task: Any, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    from cleanlab.filter import find_label_issues

    chances = np.asarray(jax.nn.softmax(outputs, -1))
    found, labels = np.unique(labels, return_inverse=True)  # cleanlab wants every class there
    chances = chances[:, found] / np.maximum(chances[:, found].sum(1, keepdims=True), 1e-12)
    if len(found) < 2:
        return np.array([], int)
    wrong = find_label_issues(labels, chances, filter_by="both", n_jobs=1)
    return np.flatnonzero(wrong)


def _numbers(task: Any, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    from cleanlab.regression.rank import get_label_quality_scores

    found, labels = np.asarray(task.decode(outputs)), labels.reshape(len(labels), -1)
    found = found.reshape(labels.shape)
    errors = np.abs(found - labels).max(1)
    q1, q3 = np.quantile(errors, (0.25, 0.75))
    scores = np.min(
        [get_label_quality_scores(labels[:, k], found[:, k]) for k in range(labels.shape[1])], 0
    )
    return np.flatnonzero((errors > q3 + FENCE * (q3 - q1)) & (scores < np.median(scores)))


def _masks(task: Any, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    from cleanlab.segmentation.rank import get_label_quality_scores

    scores = []
    for output, label in zip(outputs, labels, strict=True):
        chances = np.moveaxis(np.asarray(jax.nn.softmax(output, -1)), -1, 0)[None]
        known = (label >= 0) & (label < chances.shape[1])
        label = np.where(known, label, chances[0].argmax(0))  # what is not labelled is not wrong
        image, _ = get_label_quality_scores(label[None], chances, verbose=False)
        scores.append(float(image[0]))
    return np.flatnonzero(np.array(scores) < LEAST)


JUDGES: dict[type[Task], Callable[[Any, Any, Any], np.ndarray]] = {
    Classification: _classes,
    Regression: _numbers,
    Segmentation: _masks,
}
"""Kind of task -> function of (task, outputs, labels) that gives the rows that are wrong."""
