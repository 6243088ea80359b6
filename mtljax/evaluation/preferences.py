"""Evaluation of a network conditioned on the preference at several preferences."""

from collections.abc import Sequence
from pathlib import Path

from mtljax.data import Source
from mtljax.evaluation.evaluator import Evaluator
from mtljax.evaluation.predict import open_split
from mtljax.parallel import place
from mtljax.runs.load import TrainedModel, load_run
from mtljax.tasks.metric import SplitMetrics


def evaluate_at_preferences(
    run: TrainedModel | Path | str,
    preferences: Sequence[Sequence[float]],
    split: str = "test",
    *,
    source: Source | str | None = None,
) -> list[SplitMetrics]:
    """Evaluates a conditioned run on one of its splits at each preference, by one program.

    Args:
      run: Run folder, or the result of `load_run`.
      preferences: One value >= 0 per task each; see `TrainedModel.at_preference`.
      split: train, validation or test, or all.
      source: Data in memory, as in `train`; None: the experiment's `data.source`.

    Raises:
      ValueError: The run is not conditioned on the preference or cannot be loaded, a preference is
        invalid, the split does not exist, or the data is missing.
    """
    trained = run if isinstance(run, TrainedModel) else load_run(run)
    states = [trained.at_preference(values).state for values in preferences]
    size = trained.experiment.data.batch_size
    evaluator = Evaluator(
        trained.model,
        trained.experiment.tasks,
        open_split(trained, split, source),
        size,
        place(size, 1),
        keep_on_device=False,
    )
    return [evaluator.metrics(state) for state in states]
