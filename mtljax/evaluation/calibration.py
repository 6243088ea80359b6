"""Calibrated probabilities: one temperature per task, fitted on the validation split."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy  # subpackages are imported on first use, which keeps start-up fast
from jaxtyping import Float, Int

from mtljax.data.base import Split
from mtljax.evaluation.predictor import Predictor, read_in_batches
from mtljax.runs.folder import CALIBRATION
from mtljax.runs.load import TrainedModel
from mtljax.tasks import Classification, MultiLabel, Task
from mtljax.utils.bounded_reading import read_json
from mtljax.utils.files import write_json

BINS = 15
"""Number of bins of confidence."""
MAX_LOG = 3.0
"""Largest logarithm of a temperature or of its inverse."""


class Logits(NamedTuple):
    """Logits and labels of the labeled examples of one task."""

    output: Float[np.ndarray, "N C"]
    """Logits of the classes."""
    label: Int[np.ndarray, "N *C"]
    """Classes [N], or 0 and 1 of each class [N, C]."""


@dataclasses.dataclass(frozen=True)
class Quality:
    """Quality of probabilities on one split.

    Attributes:
      nll: Mean negative log likelihood of the labels.
      ece: Expected calibration error: mean |confidence - accuracy| over `BINS` bins of confidence.
    """

    nll: float
    ece: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Temperature of a task: its logits are divided by it.

    Attributes:
      temperature: Divisor of the logits, above 0.
      count: Number of labeled examples that it was fitted on.
      before: Quality on the validation split with temperature 1.
      after: Quality on the validation split with this temperature.
      held_out: Both on a split that was not used to fit, if one was evaluated.
    """

    temperature: float
    count: int
    before: Quality
    after: Quality
    held_out: tuple[Quality, Quality] | None = None


def calibrate(
    trained: TrainedModel, validation: Split, held_out: Split | None = None
) -> dict[str, Calibration]:
    """Fits a temperature per classification task by the likelihood of the validation labels.

    References:
      Guo et al., 2017, arXiv:1706.04599
    """
    tasks = [t for t in trained.experiment.tasks if isinstance(t, (Classification, MultiLabel))]
    fitted = read_logits(trained, tasks, validation)
    others = {} if held_out is None else read_logits(trained, tasks, held_out)
    result = {}
    for name, logits in fitted.items():
        temperature = fit_temperature(logits)
        pair = quality(logits, 1.0), quality(logits, temperature)
        other = others.get(name)
        held = other and (quality(other, 1.0), quality(other, temperature))
        result[name] = Calibration(temperature, len(logits.label), *pair, held)
    return result


def read_logits(trained: TrainedModel, tasks: list[Any], split: Split) -> dict[str, Logits]:
    """Returns the logits of the tasks that have a label in the split."""
    predictor = Predictor(trained)
    parts: dict[str, list[Logits]] = {task.name: [] for task in tasks}
    for batch in read_in_batches(split, predictor.batch_size):
        outputs = predictor.outputs(batch["image"])
        for name, batches in parts.items():
            keep = np.asarray(batch["present"][name])
            batches.append(Logits(outputs[name][keep], np.asarray(batch["labels"][name])[keep]))
    joined = {n: Logits(*map(np.concatenate, zip(*p, strict=True))) for n, p in parts.items()}
    return {name: logits for name, logits in joined.items() if len(logits.label)}


def fit_temperature(logits: Logits) -> float:
    """Returns the temperature with the largest likelihood, >= 1 if every decision is correct.

    Without an error, the likelihood grows as the temperature approaches 0.
    """
    if logits.label.ndim == 1:
        correct = logits.output.argmax(-1) == logits.label
    else:
        correct = (logits.output > 0) == (logits.label == 1)
    optimum = scipy.optimize.minimize_scalar(
        lambda log: quality(logits, float(np.exp(log))).nll,
        bounds=(0.0 if correct.all() else -MAX_LOG, MAX_LOG),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(optimum.x))


def quality(logits: Logits, temperature: float) -> Quality:
    """Returns the quality of the probabilities of logits over a temperature."""
    output, label = logits.output.astype(np.float64) / temperature, logits.label
    if label.ndim == 1:
        log = scipy.special.log_softmax(output, -1)
        likelihood = np.take_along_axis(log, label[:, None], -1)[:, 0]
        confidence, correct = np.exp(log.max(-1)), log.argmax(-1) == label
    else:  # each class is a separate decision
        known = (label == 0) | (label == 1)
        sign = np.where(label == 1, output, -output)[known]
        likelihood = -np.logaddexp(0, -sign)
        confidence, correct = scipy.special.expit(abs(sign)), sign > 0
    if not len(likelihood):
        return Quality(float("nan"), float("nan"))
    return Quality(float(-likelihood.mean()), calibration_error(confidence, correct))


def calibration_error(confidence: Float[np.ndarray, " n"], correct: Int[np.ndarray, " n"]) -> float:
    """Returns the expected calibration error, with bins of equal width."""
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gap = np.bincount(index, confidence - correct, BINS)
    return float(np.abs(gap).sum() / len(confidence))


def write_calibration(folder: Path, step: int, found: dict[str, Calibration]) -> Path:
    """Writes the temperatures to a run folder; returns the file."""
    tasks = {name: dataclasses.asdict(calibration) for name, calibration in found.items()}
    write_json(folder / CALIBRATION, {"step": step, "tasks": tasks})
    return folder / CALIBRATION


def read_temperatures(folder: Path, step: int, tasks: tuple[Task, ...]) -> dict[str, float]:
    """Returns the temperatures of a run's tasks; none if they are of another checkpoint.

    Raises:
      ValueError: The file is damaged.
    """
    path = folder / CALIBRATION
    if not path.is_file():
        return {}
    content = read_json(path)
    try:
        if content["step"] != step:
            return {}
        names = [task.name for task in tasks if task.name in content["tasks"]]
        temperatures = {name: float(content["tasks"][name]["temperature"]) for name in names}
    except (TypeError, KeyError, ValueError):
        temperatures = {"": -1.0}
    if not all(0 < value < float("inf") for value in temperatures.values()):
        raise ValueError(f"{path} is damaged; delete it, or write it anew by evaluate --calibrate")
    return temperatures
