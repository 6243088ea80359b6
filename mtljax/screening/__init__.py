"""Data screening: broken, duplicate, leaked and mislabelled examples, before training."""
