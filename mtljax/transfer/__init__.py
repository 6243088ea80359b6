"""Transfer learning: initial variables from another run or from weights of PyTorch libraries.

`read` reads a file or run folder that `locate` finds, and `match` returns the initial variables of
a model, an argument of `mtljax.create_state`; docs/transfer.md has an example.
"""

from mtljax.transfer.files import locate, read
from mtljax.transfer.matching import NO_INITIAL, InitialVariables, Part, match
from mtljax.transfer.weights import StoredWeights

__all__ = ["NO_INITIAL", "InitialVariables", "Part", "StoredWeights", "locate", "match", "read"]
