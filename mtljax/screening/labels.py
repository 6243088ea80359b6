"""Detection of probably wrong labels by cross-validation.

The experiment's network is trained several times, each time without one fold of the examples,
which it then predicts. See `mtljax.screening.judges`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from mtljax.config import Experiment
from mtljax.data.base import Source
from mtljax.data.folds import fold_rows
from mtljax.data.lazy import estimate_moments
from mtljax.data.pool import ExampleId, Pool
from mtljax.evaluation.predictions import Predictions
from mtljax.screening.findings import Finding
from mtljax.screening.judges import Records, judge_of
from mtljax.tasks import Task
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up
from mtljax.training.steps import take_steps
from mtljax.utils.text import number

MIN_REDUCTION = 0.25
"""Fraction of a constant's error that the networks must remove for their task to be judged: of
networks that err nearly as often as a constant, most doubts are unfounded."""
MIN_Z = 3.1
"""Standard errors by which they must exceed it: 99.9 % confidence."""
MAX_SHARE = 0.15
"""Fraction of the examples with doubted labels above which only the most doubtful are listed."""


class Evidence(NamedTuple):
    """Out-of-fold predictions of one task's labels."""

    task: Task
    """The task."""
    places: Sequence[ExampleId]
    """Predicted examples."""
    records: Records
    """One row per place; empty for tasks without a judge."""


def find_label_issues(
    experiment: Experiment,
    source: Source,
    places: Sequence[ExampleId],
    folds: int,
    progress: Callable[[str], None],
) -> tuple[list[Finding], list[str]]:
    """Trains without each fold in turn, and returns doubtful labels and remarks.

    Args:
      places: Examples without errors.
    """
    parts: dict[str, list[tuple[list[ExampleId], Records]]] = {t.name: [] for t in experiment.tasks}
    results = out_of_fold(experiment, source, places, folds)
    for fold, batches in enumerate(results, 1):
        for held_out, predictions in batches:
            for task in experiment.tasks:
                judge = judge_of(task)
                index, outputs, labels = predictions.of(task)
                if judge is not None and len(index):
                    where = [held_out[int(i)] for i in index]
                    parts[task.name].append((where, judge.collect(task, outputs, labels)))
        progress(f"checked labels, fold {fold} of {folds}")
    evidence = []
    for task in experiment.tasks:
        records = [record for _, record in parts[task.name]]
        merged = jax.tree.map(lambda *x: np.concatenate(x), *records) if records else {}
        where = [place for group, _ in parts[task.name] for place in group]
        evidence.append(Evidence(task, where, merged))
    return weigh(evidence, len(places))


def out_of_fold(
    experiment: Experiment, source: Source, places: Sequence[ExampleId], folds: int
) -> Iterator[Iterator[tuple[list[ExampleId], Predictions]]]:
    """Trains without each fold in turn and predicts it.

    Yields:
      For each fold, batches of (examples, their predictions).
    """
    pool = Pool(source.splits(), places)
    mean, std = estimate_moments(pool)  # without the broken images
    source = dataclasses.replace(source, mean=mean, std=std)
    parts = fold_rows(pool, folds)
    size = len(places) - max(map(len, parts))  # equal sizes, so one program fits all folds
    rng = np.random.default_rng(experiment.seed)
    for held_out in parts:
        rest = rng.permutation(np.setdiff1d(np.arange(len(places)), held_out))[:size]
        part = dataclasses.replace(
            source, train=pool.at(rest), validation=pool.at(held_out), test=pool.at(held_out)
        )
        yield _train_and_predict(experiment, part, [places[int(row)] for row in held_out])


def _train_and_predict(
    experiment: Experiment, source: Source, places: Sequence[ExampleId]
) -> Iterator[tuple[list[ExampleId], Predictions]]:
    programs = Programs(set_up(experiment, source=source))
    state = programs.create(experiment.seed)
    for chunk in take_steps(programs, [experiment.seed], state, 0):
        state = chunk.state
    start = 0
    for predictions in programs.test.predictions(state):
        stop = start + len(predictions.images)
        yield list(places[start:stop]), predictions
        start = stop


def weigh(evidence: Sequence[Evidence], examples: int) -> tuple[list[Finding], list[str]]:
    """Returns the doubtful labels, the most doubtful first, and remarks on what was not judged.

    Labels are judged where the networks clearly beat the best constant, and listed for at most
    `MAX_SHARE` of the examples, in turn for each task.
    """
    remarks, judged = [], []
    for task, _, records in evidence:
        reason = _reason_not_to_judge(task, records)
        if reason is None:
            judged.append(task)
        else:
            remarks.append(f"labels of task {task.name!r} not judged: {reason}")
    ranked: list[tuple[int, Finding]] = []
    for task, places, records in evidence:
        judge = judge_of(task)
        if judge is None or task not in judged:
            continue
        suspicion = judge.suspicion(records)
        order = np.argsort(-suspicion, kind="stable")[: int((suspicion > 0).sum())]
        most = math.ceil(judge.max_share * len(places) / len(judged))
        if len(order) > most:
            remarks.append(
                f"{len(order)} labels of task {task.name!r} differ much from the prediction: the "
                f"{most} that differ most are listed"
            )
        for rank, row in enumerate(order[:most]):
            detail = f"{task.name}: {judge.detail(task, records, int(row))}"
            ranked.append((rank, Finding(places[row], "label", detail, task=task.name)))
    ranked.sort(key=lambda item: item[0])
    findings = [finding for _, finding in ranked]
    limit = max(1, math.floor(MAX_SHARE * examples))
    listed = set(list(dict.fromkeys(finding.place for finding in findings))[:limit])
    kept = [finding for finding in findings if finding.place in listed]
    if len(kept) < len(findings):
        remarks.append(
            f"{len(findings)} labels are doubtful: only the most doubtful {len(kept)}, in "
            f"{100 * MAX_SHARE:.0f} % of the examples, are listed"
        )
    return kept, remarks


def _reason_not_to_judge(task: Task, records: Records) -> str | None:
    """Returns why a task's labels cannot be judged, None if they can."""
    judge = judge_of(task)
    if judge is None:
        return "only classes, numbers and masks are"
    if not records:
        return "no example has one"
    network, constant = judge.errors(records)
    gain = (1 - MIN_REDUCTION) * constant - network
    error = gain.std() / math.sqrt(len(gain))
    if np.isfinite(network).all() and gain.mean() > MIN_Z * error:
        return None
    scores = (number(judge.score(errors)) for errors in (network, constant))
    return "the network ({} {}) does not clearly beat a constant ({})".format(judge.metric, *scores)
