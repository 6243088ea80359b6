"""Comparisons with synthetic results, which need no training, and a small real one."""

import json

from mtljax.comparison.plan import plan
from mtljax.config import Data, Experiment
from mtljax.tasks import Classification, Regression


class Both(Regression):
    """A regression that is compared by two metrics."""

    @property
    def compared(self):
        return ("mae", False), ("rmse", False)


EXPERIMENT = Experiment(
    name="synthetic",
    tasks=(Classification(name="digit", num_classes=10), Both(name="value")),
    data=Data(source="digits"),
    trunk="mlp:widths=(4,)",
)


def write_result(folder, accuracy, mae, rmse, *, seed=0, validation=0.5, **more):
    """Writes the result.json that a run with these test metrics would have."""
    metrics = lambda loss: {
        "digit": {"loss": loss, "accuracy": accuracy},
        "value": {"loss": loss, "mae": mae, "rmse": rmse},
    }
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "experiment": "synthetic",
        "seed": seed,
        "best_step": 10,
        "validation": metrics(validation),
        "test": metrics(0.4),
        "parameters": {"total": 100, "shared": 60, "task_specific": {"digit": 30, "value": 10}},
        "ms_per_step": 2.0,
        "memory_bytes": 2**20,
        "compile_seconds": 1.0,
        "telemetry": {"conflicting": 0.25, "mean_cosine": 0.1},
        "together": 1,
        "device": "1 x cpu",
        "environment": {"python": "3.11"},
        **more,
    }
    (folder / "result.json").write_text(json.dumps(result))


def write_results(workdir, values, **asked):
    """Plans a comparison and writes results: {method: [(accuracy, mae, rmse) of each seed]}.

    None is an unfinished run. The baselines have the key STL.
    """
    methods = plan(EXPERIMENT, **asked)
    for method in methods:
        rows = values["STL" if method.kind == "stl" else method.name]
        for seed, row in enumerate(rows):
            if row is not None:
                write_result(method.candidates[0].folder(workdir, seed), *row, seed=seed)
    return methods


# Plain gradient descent: Adam would turn rounding errors of a zero gradient into a full step.
SMALL = Experiment(
    name="small",
    tasks=(Classification(name="digit", num_classes=10), Regression(name="value", scale=3.0)),
    data=Data(source="digits", batch_size=32),
    trunk="mlp:widths=(8,),norm=none",
    steps=30,
    optimizer="sgd",
    learning_rate=0.05,
    schedule="constant",
    log_every=5,
    eval_every=10,
    telemetry_every=10,
)
"""Experiment that trains in a moment."""
