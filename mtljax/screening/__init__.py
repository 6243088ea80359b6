"""Screening data: what is broken, doubled, leaked or mislabelled, before a network learns it."""
