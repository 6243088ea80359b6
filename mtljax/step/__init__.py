"""The train step and the evaluation step: pure functions over one frozen state."""
