"""Train step and evaluation step: pure functions of one state pytree and a batch."""
