"""Search for the best settings of an experiment, on validation."""
