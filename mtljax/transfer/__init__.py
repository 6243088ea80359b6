"""Transfer learning: initial variables from another run or from weights of PyTorch libraries.

stored = transfer.read(transfer.locate("resnet50.pth"))
initial = transfer.match(stored, model, variables, low=0, high=255)
state = mtljax.create_state(key, *parts, batch, initial=initial.variables)
"""

from mtljax.transfer.files import locate, read
from mtljax.transfer.matching import NO_INITIAL, InitialVariables, Part, match
from mtljax.transfer.weights import StoredWeights

__all__ = ["NO_INITIAL", "InitialVariables", "Part", "StoredWeights", "locate", "match", "read"]
