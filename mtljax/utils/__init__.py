"""Helpers that every package may use; they depend on no other package of mtljax."""
