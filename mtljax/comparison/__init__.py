"""The honest comparison: single-task baselines, methods and seeds, and what may be concluded."""
