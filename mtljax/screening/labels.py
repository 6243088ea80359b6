"""Detection of probably wrong labels by cross-validation and cleanlab.

The experiment's own network is trained several times, each time without one fold of the examples,
which it then predicts.

References:
  Northcutt et al., 2021, arXiv:1911.00068 (confident learning); Zhou et al., 2023,
  arXiv:2305.16583 (regression); Lad and Mueller, 2023, arXiv:2307.05080 (segmentation)
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Float, Int, Num

from mtljax.config import Experiment
from mtljax.data.base import Source
from mtljax.data.lazy import estimate_moments
from mtljax.data.pool import ExampleId, Pool
from mtljax.evaluation.predictions import Predictions, take
from mtljax.screening.findings import Finding
from mtljax.tasks import Classification, Regression, Segmentation, Task
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up
from mtljax.training.steps import take_steps

FENCE = 6.0
"""Distance of an improbable error from the upper quartile of errors, in interquartile ranges."""
MIN_MASK_SCORE = 0.1
"""cleanlab's quality score below which a mask is considered wrong."""

Judge = Callable[[Task, Float[np.ndarray, "N *_"], Num[np.ndarray, "N *_"]], Int[np.ndarray, " n"]]
"""Function of (task, outputs, labels) that returns the rows with improbable labels."""


def out_of_fold(
    experiment: Experiment, source: Source, places: Sequence[ExampleId], folds: int
) -> Iterator[tuple[list[ExampleId], Predictions]]:
    """Trains without each fold in turn and predicts it.

    Yields:
      (examples of the fold, their predictions).
    """
    order = np.random.default_rng(experiment.seed).permutation(len(places))
    pool = Pool(source.splits(), places)
    mean, std = estimate_moments(pool)  # without the broken images
    source = dataclasses.replace(source, mean=mean, std=std)
    size = len(places) - -(-len(places) // folds)  # equal sizes, so one program fits all folds
    for fold in range(folds):
        held_out, rest = order[fold::folds], np.delete(order, np.s_[fold::folds])[:size]
        part = dataclasses.replace(
            source, train=pool.at(rest), validation=pool.at(held_out), test=pool.at(held_out)
        )
        predictions = _train_and_predict(experiment, part, len(held_out))
        yield [places[int(row)] for row in held_out], predictions


def _train_and_predict(experiment: Experiment, source: Source, count: int) -> Predictions:
    programs = Programs(set_up(experiment, source=source))
    state = programs.create(experiment.seed)
    for chunk in take_steps(programs, [experiment.seed], state, 0):
        state = chunk.state
    return programs.test.metrics_and_predictions(state, max_examples=count)[1]


def find_label_issues(
    task: Task, places: Sequence[ExampleId], predictions: Predictions
) -> Iterator[Finding]:
    """Finds labels of a task that contradict the predictions."""
    judge = next((judge for kind, judge in JUDGES.items() if isinstance(task, kind)), None)
    rows, outputs, labels = predictions.of(task)
    if judge is None or not len(rows):
        return
    decoded = jax.tree.map(np.asarray, task.decode(outputs))
    with warnings.catch_warnings(action="ignore"):
        improbable = judge(task, outputs, labels)
    for i in improbable:
        label, prediction = (task.text(take(values, i)) for values in (labels, decoded))
        detail = f"{task.name}: {label}; predicted {prediction}"
        yield Finding(places[rows[i]], "label", detail)


def _judge_classes(
    task: Task, outputs: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]
) -> Int[np.ndarray, " n"]:
    from cleanlab.filter import find_label_issues

    probabilities = np.asarray(jax.nn.softmax(outputs, -1))
    classes, labels = np.unique(labels, return_inverse=True)  # cleanlab needs every class present
    probabilities = probabilities[:, classes]
    probabilities = probabilities / np.maximum(probabilities.sum(1, keepdims=True), 1e-12)
    if len(classes) < 2:
        return np.array([], int)
    return np.flatnonzero(find_label_issues(labels, probabilities, filter_by="both", n_jobs=1))


def _judge_numbers(
    task: Task, outputs: Float[np.ndarray, "N *_"], labels: Float[np.ndarray, "N *_"]
) -> Int[np.ndarray, " n"]:
    from cleanlab.regression.rank import get_label_quality_scores

    labels = labels.reshape(len(labels), -1)
    predicted = np.asarray(task.decode(outputs)).reshape(labels.shape)
    errors = np.abs(predicted - labels).max(1)
    q1, q3 = np.quantile(errors, (0.25, 0.75))
    scores = np.min(
        [get_label_quality_scores(labels[:, k], predicted[:, k]) for k in range(labels.shape[1])], 0
    )
    return np.flatnonzero((errors > q3 + FENCE * (q3 - q1)) & (scores < np.median(scores)))


def _judge_masks(
    task: Task, outputs: Float[np.ndarray, "N H W K"], labels: Int[np.ndarray, "N H W"]
) -> Int[np.ndarray, " n"]:
    from cleanlab.segmentation.rank import get_label_quality_scores

    scores = []
    for output, label in zip(outputs, labels, strict=True):
        probabilities = np.moveaxis(np.asarray(jax.nn.softmax(output, -1)), -1, 0)[None]
        known = (label >= 0) & (label < probabilities.shape[1])
        label = np.where(known, label, probabilities[0].argmax(0))  # unlabelled pixels are right
        image, _ = get_label_quality_scores(label[None], probabilities, verbose=False)
        scores.append(float(image[0]))
    return np.flatnonzero(np.array(scores) < MIN_MASK_SCORE)


JUDGES: dict[type[Task], Judge] = {
    Classification: _judge_classes,
    Regression: _judge_numbers,
    Segmentation: _judge_masks,
}
"""Kind of task -> its judge."""
