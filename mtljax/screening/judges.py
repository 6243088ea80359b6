"""Judges of labels: which labels contradict the predictions of networks that did not learn them.

A class is doubtful if cleanlab finds it, and if it is more probably drawn at random than from the
calibrated class probabilities. Their temperature and the fraction of random labels are fitted
together, so networks that are often wrong, and uncertain, doubt few labels. Numbers and masks are
doubtful if their error is far outside the distribution of errors; only the largest are listed, as
these distributions may have long tails.

References:
  Northcutt et al., 2021, arXiv:1911.00068 (confident learning); Guo et al., 2017, arXiv:1706.04599
  (temperature scaling)
"""

import abc
import warnings

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from mtljax.tasks import Classification, Regression, Segmentation, Task

Records = dict[str, np.ndarray]
"""Label and prediction of the examples, in as few numbers as a judge needs: [N, ...] arrays."""

TEMPERATURES = np.geomspace(0.1, 20, 40)
"""Temperatures between which the likelihood of the labels chooses."""
NOISE = (1e-5, *np.geomspace(1e-3, 0.3, 25))
"""Fractions of random labels that are tried."""
CALIBRATION_LABELS = 10_000
"""Maximum number of labels of a calibration."""
NUMBER_FENCE, MASK_FENCE = 6.0, 3.0
"""Distance of an improbable error from the upper quartile of errors, in interquartile ranges."""
MAX_OUTLIERS = 0.02
"""Fraction of numbers or masks that are doubted, at most."""
MIN_MASK_ERROR = 0.25
"""Mean improbability of a mask's pixels below which it is not doubted."""


class Judge(abc.ABC):
    """Judge of the labels of one kind of task."""

    metric: str
    """Name of the number that `score` returns."""
    max_share = 1.0
    """Fraction of the labels that are listed, at most; divided by the number of tasks."""

    @abc.abstractmethod
    def collect(self, task: Task, outputs: np.ndarray, labels: np.ndarray) -> Records:
        """Returns the records of a batch from the outputs of a network that did not learn it."""

    @abc.abstractmethod
    def errors(self, records: Records) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
        """Returns the errors of the networks, and of the best constant, for each example."""

    def score(self, errors: Float[np.ndarray, " N"]) -> float:
        """Returns the metric from the errors of all examples; by default their complement."""
        return 1 - float(errors.mean())

    @abc.abstractmethod
    def suspicion(self, records: Records) -> Float[np.ndarray, " N"]:
        """Returns how doubtful each label is: 0 if not at all, otherwise positive."""

    @abc.abstractmethod
    def detail(self, task: Task, records: Records, row: int) -> str:
        """Returns the label and the prediction of one example as text."""


class ClassJudge(Judge):
    """Judge of classes."""

    metric = "accuracy"

    def collect(self, task: Task, outputs: np.ndarray, labels: np.ndarray) -> Records:
        return {"logits": np.asarray(outputs, np.float32), "label": np.asarray(labels, int)}

    def errors(self, records: Records) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
        labels, predicted = records["label"], records["logits"].argmax(1)
        return 1.0 * (predicted != labels), 1.0 * (np.bincount(labels).argmax() != labels)

    def suspicion(self, records: Records) -> Float[np.ndarray, " N"]:
        from cleanlab.filter import find_label_issues

        classes, labels = np.unique(records["label"], return_inverse=True)
        if len(classes) < 2:
            return np.zeros(len(labels))
        logits = records["logits"][:, classes]  # cleanlab needs every class present
        random = probability_of_noise(logits, labels)
        with warnings.catch_warnings(action="ignore"):
            found = find_label_issues(labels, softmax(logits, 1), filter_by="both", n_jobs=1)
        return np.where((random > 0.5) & found, random, 0)

    def detail(self, task: Task, records: Records, row: int) -> str:
        predicted = records["logits"][row].argmax()
        return f"{task.text(records['label'][row])}; predicted {task.text(predicted)}"


def probability_of_noise(
    logits: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """Returns the probability that each label was drawn at random.

    The model is p(label) = (1 - noise) softmax(logits / temperature)[label] + noise / K, with the
    two parameters of maximum likelihood. Without noise, a temperature by itself would explain wrong
    labels by networks that are uncertain about everything.
    """
    count = logits.shape[1]
    rows = np.random.default_rng(0).permutation(len(labels))[:CALIBRATION_LABELS]
    noise = np.array(NOISE)[:, None]

    def given(temperature: float, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        return softmax(logits[rows] / temperature, 1)[np.arange(len(rows)), labels[rows]]

    likelihoods = np.stack(
        [np.log((1 - noise) * given(t, rows) + noise / count).mean(1) for t in TEMPERATURES]
    )
    best, which = np.unravel_index(likelihoods.argmax(), likelihoods.shape)
    probability = given(TEMPERATURES[best], np.arange(len(labels)))
    random = NOISE[which] / count
    return random / ((1 - NOISE[which]) * probability + random)


class NumberJudge(Judge):
    """Judge of one or several numbers."""

    metric = "mean absolute error"
    max_share = MAX_OUTLIERS

    def collect(self, task: Task, outputs: np.ndarray, labels: np.ndarray) -> Records:
        rows = lambda x: np.asarray(x, np.float64).reshape(len(labels), -1)
        return {"predicted": rows(task.decode(outputs)), "label": rows(labels)}

    def errors(self, records: Records) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
        label = records["label"]
        errors = (np.abs(x - label) for x in (records["predicted"], np.median(label, 0)))
        network, constant = (error.mean(1) for error in errors)
        return network, constant

    def score(self, errors: Float[np.ndarray, " N"]) -> float:
        return float(errors.mean())

    def suspicion(self, records: Records) -> Float[np.ndarray, " N"]:
        errors = np.abs(records["predicted"] - records["label"])
        typical = np.maximum(np.median(errors, 0), 1e-12)  # components may have different units
        return _beyond_fence((errors / typical).max(1), NUMBER_FENCE)

    def detail(self, task: Task, records: Records, row: int) -> str:
        label, predicted = (task.text(records[name][row]) for name in ("label", "predicted"))
        return f"{label}; predicted {predicted}"


class MaskJudge(Judge):
    """Judge of masks. Pixels without a class do not count."""

    metric = "pixel accuracy"
    max_share = MAX_OUTLIERS

    def collect(self, task: Task, outputs: np.ndarray, labels: np.ndarray) -> Records:
        probabilities = np.asarray(jax.nn.softmax(outputs, -1))
        known = (labels >= 0) & (labels < probabilities.shape[-1])
        classes = np.where(known, labels, 0)
        given = np.take_along_axis(probabilities, classes[..., None], -1)[..., 0]
        wrong = probabilities.argmax(-1) != classes
        total = np.maximum(known.sum((1, 2)), 1)
        return {
            "improbability": ((1 - given) * known).sum((1, 2)) / total,
            "wrong": (wrong & known).sum((1, 2)) / total,
            "classes": np.stack(
                [((classes == k) & known).sum((1, 2)) for k in range(probabilities.shape[-1])], 1
            ),
        }

    def errors(self, records: Records) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
        classes = records["classes"]
        total = classes.sum(1)
        most = classes[:, classes.sum(0).argmax()]
        return records["wrong"], (total - most) / np.maximum(total, 1)

    def suspicion(self, records: Records) -> Float[np.ndarray, " N"]:
        errors = records["improbability"]
        return np.where(errors > MIN_MASK_ERROR, _beyond_fence(errors, MASK_FENCE), 0)

    def detail(self, task: Task, records: Records, row: int) -> str:
        return (
            f"{100 * records['wrong'][row]:.0f} % of the labeled pixels differ from the prediction"
        )


def _beyond_fence(errors: Float[np.ndarray, " N"], fence: float) -> Float[np.ndarray, " N"]:
    """Returns the errors above the fence, and 0 for the rest."""
    q1, q3 = np.quantile(errors, (0.25, 0.75))
    return np.where(errors > q3 + fence * (q3 - q1), errors / max(q3, 1e-12), 0)


JUDGES: dict[type[Task], Judge] = {
    Classification: ClassJudge(),
    Regression: NumberJudge(),
    Segmentation: MaskJudge(),
}
"""Kind of task -> its judge."""


def judge_of(task: Task) -> Judge | None:
    """Returns the judge of a task's labels, None if there is none."""
    return next((judge for kind, judge in JUDGES.items() if isinstance(task, kind)), None)
