"""Training: the loop, its compiled programs, and what it records."""
