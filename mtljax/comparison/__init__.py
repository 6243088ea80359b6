"""Comparison of methods with single-task baselines over seeds, with significance tests."""
