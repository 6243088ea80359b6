"""Task grouping: affinity measured during training, and the best partition into networks."""
