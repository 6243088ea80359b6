"""Evaluation of splits, prediction for files, and the constant-predictor baseline."""
