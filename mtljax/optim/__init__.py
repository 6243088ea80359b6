"""Optimizers, schedules and fine-tuning transformations."""
