"""A tiny experiment on arrays in memory, which trains without drawing a report."""

import dataclasses
import json

import numpy as np

from mtljax.config import Data, Experiment
from mtljax.data import from_arrays
from mtljax.runs.checkpoints import Checkpoints
from mtljax.tasks import Classification, Regression
from mtljax.training.loop import train_group
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up

EXPERIMENT = Experiment(
    name="tiny",
    tasks=(Classification(name="a", num_classes=2), Regression(name="b", center=0.5, scale=0.1)),
    data=Data(source="memory", batch_size=8),
    trunk="mlp:widths=(4,)",
    schedule="constant",
    learning_rate=0.01,
    steps=28,
    log_every=2,
    eval_every=4,
    telemetry_every=0,
)
CLOCK = ("seconds", "earlier_seconds", "examples_per_second")


def source():
    image = np.random.default_rng(0).integers(0, 255, (80, 3, 3, 1)).astype(np.uint8)
    mean = image.mean((1, 2, 3)) / 255
    return from_arrays(image, {"a": (mean > 0.5).astype(np.int32), "b": mean.astype(np.float32)})


def make_programs(*, devices=1, **changes):
    experiment = dataclasses.replace(EXPERIMENT, **changes)
    return Programs(set_up(experiment, devices=devices, source=source()))


def run(programs, folders, die_at=None, seeds=(0,)):
    """Trains one run per folder, side by side; is interrupted when it has reached a step."""

    def progress(step):
        if step == die_at:
            raise KeyboardInterrupt

    experiments = [dataclasses.replace(programs.setup.experiment, seed=seed) for seed in seeds]
    return train_group(experiments, folders, programs, quiet=True, report=False, progress=progress)


def lines(folder):
    """Lines of metrics.jsonl without what the clock says."""
    found = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in CLOCK} for line in found]


def states(folder):
    """{step: arrays} of the latest and the best checkpoint."""
    checkpoints = Checkpoints(folder, read_only=True)
    found = {step: checkpoints.read(step) for step in (checkpoints.latest(), checkpoints.best())}
    checkpoints.close()
    return found


def assert_same_states(ours, theirs):
    """Assert that checkpoints are equal, bit for bit."""
    assert ours.keys() == theirs.keys()
    for step, arrays in ours.items():
        assert arrays.keys() == theirs[step].keys()
        for name, leaf in arrays.items():
            assert leaf.tobytes() == theirs[step][name].tobytes(), name


def script_scores(monkeypatch, scores, evaluation=0):
    """Replaces the scores by those of a script, {seed: scores}, from an evaluation on."""
    iterators = {seed: iter(values[evaluation:]) for seed, values in scores.items()}
    monkeypatch.setattr(
        "mtljax.training.run.selection_score",
        lambda experiment, _: next(iterators[experiment.seed]),
    )
