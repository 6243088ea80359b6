"""Statements of the docstrings about LibMTL and TorchJD, and the names of methods there."""

import re

from mtljax.cli.catalog import Entry

NAMES = (
    ("ew", "EW", "Sum"),
    ("fixed", "", "Constant"),
    ("gls", "GLS", ""),
    ("stch", "STCH", ""),
    ("uw", "UW", ""),
    ("dwa", "DWA", ""),
    ("rlw", "RLW", ""),
    ("famo", "FAMO", ""),
    ("mgda", "MGDA", "MGDA"),
    ("cagrad", "CAGrad", "CAGrad"),
    ("upgrad", "UPGrad", "UPGrad"),
    ("dualproj", "", "DualProj"),
    ("pcd", "", "PCD"),
    ("modo", "MoDo", "MoDoWeighting"),
    ("sdmgrad", "SDMGrad", "SDMGradWeighting"),
    ("pcgrad", "PCGrad", "PCGrad"),
    ("gradvac", "GradVac", "GradVac"),
    ("graddrop", "GradDrop", "GradDrop"),
    ("imtl", "IMTL", ""),
    ("imtl_g", "", "IMTLG"),
    ("config", "", "ConFIG"),
    ("nash_mtl", "Nash_MTL", "NashMTL"),
    ("fairgrad", "FairGrad", "FairGrad"),
    ("aligned_mtl", "Aligned_MTL", "AlignedMTL"),
    ("gradnorm", "GradNorm", ""),
    ("moco", "MoCo", ""),
    ("db_mtl", "DB_MTL", ""),
    ("excess_mtl", "ExcessMTL", ""),
    ("krum", "", "Krum"),
    ("trimmed_mean", "", "TrimmedMean"),
)
"""Balancer, weighting strategy of LibMTL, aggregator of TorchJD; empty where there is none."""

ARCHITECTURES = (
    ("none", "HPS"),
    ("cross_stitch", "Cross_stitch"),
    ("mmoe", "MMoE"),
    ("mtan", "MTAN"),
    ("cgc", "CGC"),
    ("ple", "PLE"),
    ("ltb", "LTB"),
    ("dselect_k", "DSelect_k"),
)
"""Fusion, architecture of LibMTL."""


def mentions(entry: Entry) -> str:
    """Sentences of a description and of the arguments that name one of the two libraries."""
    texts = entry.description.split("Convention: ")
    texts += [f"`{argument.name}`: {argument.help}" for argument in entry.arguments]
    result = []
    for text in texts:
        for sentence in re.split(r"(?<=\.) (?=[A-Z`])", " ".join(text.split())):
            if re.search("LibMTL|TorchJD", sentence):
                result.append(sentence[0].upper() + sentence[1:])
    return " ".join(result)
