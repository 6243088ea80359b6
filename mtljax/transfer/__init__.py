"""Starting from what is learned: weights of another run, or of PyTorch's libraries.

stored = transfer.read(transfer.locate("resnet50.pth"))
initial = transfer.match(stored, model, variables, low=0, high=255)
state = mtljax.create_state(key, *parts, batch, initial=initial.variables)
"""

from mtljax.transfer.files import locate, read
from mtljax.transfer.matching import NOTHING, Initial, Part, match
from mtljax.transfer.weights import Stored

__all__ = ["NOTHING", "Initial", "Part", "Stored", "locate", "match", "read"]
