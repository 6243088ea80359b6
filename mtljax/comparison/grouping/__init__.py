"""Task grouping: affinities measured in training, and the best partition into networks."""
