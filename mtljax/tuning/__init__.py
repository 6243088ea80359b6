"""Tuning of settings on validation: spaces, studies and trials."""
