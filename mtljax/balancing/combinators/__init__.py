"""Combinators: functions from balancers to a balancer, in the manner of optax."""
