"""Configuration of experiments, and the files that contain it."""

from mtljax.config.experiment import Data, Experiment
from mtljax.config.files import find_experiment, from_json, read_config, to_json

__all__ = ["Data", "Experiment", "find_experiment", "from_json", "read_config", "to_json"]
