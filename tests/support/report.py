"""A synthetic run, and checks of its report."""

import copy
import html.parser
import io

import numpy as np
from PIL import Image

from mtljax.config import Data, Experiment
from mtljax.evaluation.predictions import Predictions
from mtljax.report.run import write_report
from mtljax.runs.records import TrainRecord, ValidationRecord
from mtljax.runs.result import ParameterCounts, RunResult
from mtljax.tasks import Classification, Regression


class Page(html.parser.HTMLParser):
    """Tags, text and table cells of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.cells, self.in_cell = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th"):
            self.cells.append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.in_cell = False

    def handle_data(self, data):
        self.words.append(data)
        if self.in_cell:
            self.cells[-1] += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def make_run(*, names=("digit", "value"), lines=12, weights=True, channels=1, size=60):
    """Arguments of `write_report` for a small synthetic run with a class and a number."""
    rng = np.random.default_rng(0)
    digit, value = names
    tasks = (Classification(name=digit, num_classes=10), Regression(name=value))
    history = []
    for i in range(1, lines + 1):
        record = TrainRecord(
            step=10 * i,
            epoch=i / 2,
            loss={digit: 2.0 / i, value: 1.0 / i},
            weight={digit: 1.0 + 0.1 * i, value: 1.0} if weights else None,
            grad_norm=3.0 / i,
            skipped=0,
            examples_per_second=9000.0 + i,
            seconds=0.1 * i,
        )
        history.append(record)
        if i % 4 == 0:
            losses = {digit: {"loss": 2.5 / i, "accuracy": 0.9}, value: {"loss": 1.0, "mae": 0.5}}
            history.append(ValidationRecord(step=10 * i, validation=losses, score=1.0))
    truth = rng.integers(0, 10, size)
    outputs = {
        digit: 4 * np.eye(10)[truth] + rng.normal(size=(size, 10)),
        value: truth + rng.normal(0, 0.3, size),
    }
    measured = {
        digit: {"loss": 0.1234, "accuracy": 0.98765, "macro_f1": 0.8765, "confusion": [[1, 0]]},
        value: {"loss": 0.2345, "mae": 0.3456, "rmse": 0.4567, "r2": 0.5678},
    }
    result = RunResult(
        experiment="digits",
        steps=10 * lines,
        best_step=min(80, 10 * lines),
        validation=measured,
        test=copy.deepcopy(measured),
        constant_predictor={digit: {"loss": 2.3, "accuracy": 0.1234}, value: {"mae": 2.5}},
        parameters=ParameterCounts(total=1500, shared=1000, task_specific={digit: 400, value: 100}),
        seconds=7.5,
        train_seconds=5.25,
        ms_per_step=12.5,
        examples_per_second=8765.0,
        device="1 x cpu",
        environment={"python": "3.11.2", "jax": "0.10.2"},
    )
    return {
        "experiment": Experiment(
            name="digits", tasks=tasks, data=Data(source="digits"), balancer="uw"
        ),
        "history": history,
        "result": result,
        "test": Predictions(
            images=rng.uniform(0, 16, (size, 8, 8, channels)).astype(np.float32),
            outputs=outputs,
            labels={digit: truth, value: truth.astype(np.float32)},
            present={name: np.ones(size, bool) for name in names},
        ),
    }


def write(folder, run):
    write_report(folder, **run)
    return (folder / "report.html").read_text(encoding="utf-8")


def is_drawn(png: bytes) -> bool:
    """True for a valid PNG with enough pixels that are not background."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    return min(pixels.shape) > 100 and np.mean(pixels < 250) > 0.005 and np.ptp(pixels) > 100
