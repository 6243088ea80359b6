"""Keeping models safe: encryption, signatures, and bounds on what a file may ask for.

What is encrypted: the model, that is every checkpoint and export of a run with `--encrypt`. What is
not: the experiment (`config.json`), the numbers (`metrics.jsonl`, `result.json`), and the report,
whose pictures show test images.
"""
