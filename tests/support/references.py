"""References of all balancers: name -> function that makes a `step`, see `balancing_references`."""

from support import balancing_references, front_references, recent_references

REFERENCES = (
    balancing_references.REFERENCES | front_references.REFERENCES | recent_references.REFERENCES
)
