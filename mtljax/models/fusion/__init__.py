"""Fusions: methods for sharing a trunk and exchanging features between tasks, one file each."""

from mtljax.models.fusion.attention import CrossTaskAttention
from mtljax.models.fusion.base import Fusion
from mtljax.models.fusion.cross_stitch import CrossStitch
from mtljax.models.fusion.dselect_k import DSelectK
from mtljax.models.fusion.independent import Independent
from mtljax.models.fusion.invpt import InvPT
from mtljax.models.fusion.ltb import LearningToBranch
from mtljax.models.fusion.mmoe import MMoE
from mtljax.models.fusion.mtan import MTAN
from mtljax.models.fusion.mti_net import MTINet
from mtljax.models.fusion.nddr import NDDR
from mtljax.models.fusion.none import HardSharing
from mtljax.models.fusion.pad_net import PADNet
from mtljax.models.fusion.ple import CGC, PLE
from mtljax.models.fusion.task_prompt import TaskPrompt

FUSIONS: dict[str, type[Fusion]] = {
    "none": HardSharing,
    "independent": Independent,
    "cross_stitch": CrossStitch,
    "nddr": NDDR,
    "mtan": MTAN,
    "mmoe": MMoE,
    "cgc": CGC,
    "ple": PLE,
    "dselect_k": DSelectK,
    "ltb": LearningToBranch,
    "pad_net": PADNet,
    "mti_net": MTINet,
    "attention": CrossTaskAttention,
    "invpt": InvPT,
    "task_prompt": TaskPrompt,
}
"""Name -> Linen module `(trunk, tasks, taps, remat, pools, **arguments)`."""

__all__ = ["FUSIONS", "Fusion"]
