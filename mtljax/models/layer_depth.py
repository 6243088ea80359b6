"""Distances of parameters from the heads, for layer-wise decay and gradual unfreezing.

They raise ValueError if no parameter belongs to a stage of the trunk.
"""

import re
from collections.abc import Callable, Iterable

StageOf = Callable[[str], int | None]
"""Maps a module of the fusion to its trunk stage, or None; see `Fusion.stage_of`."""

BLOCK = re.compile(r"(?:block|Conv|Dense|Norm)_(\d+)(?:_(\d+))?")
"""Name of a module that is a block of a stage."""
AFTER_BLOCKS = ("norm", "head")
"""Modules after the last block of a trunk: final normalization, final convolution."""


def layer_distances(paths: Iterable[str], stage_of: StageOf) -> dict[str, int]:
    """Number of layers between each parameter and the heads.

    A layer is a block of the trunk, or the part of a stage before its blocks. Heads, modules of the
    fusion and modules after the last block have distance 0, the last block has distance 1, as in
    BEiT and timm. All copies of a stage have the same distance.
    """
    return _ranks({path: _layer(_location(path, stage_of)) for path in paths})


def stage_distances(paths: Iterable[str], stage_of: StageOf) -> dict[str, int]:
    """Number of stages between each parameter and the heads.

    Heads and modules of the fusion have distance 0, the last stage of the trunk has distance 1.
    """
    locations = {path: _location(path, stage_of) for path in paths}
    return _ranks({path: location and location[:1] for path, location in locations.items()})


def is_in_part(path: str, part: str, stage_of: StageOf) -> bool:
    """True if a parameter is in a part of the model: `trunk`, `fusion` (with trunk) or `all`.

    Example:
      >>> is_in_part("fusion/trunk_0/kernel", "trunk", {"trunk_0": 0}.get)
      True
    """
    if part == "trunk":
        return _location(path, stage_of) is not None
    return part == "all" or path.startswith("fusion/")


def _location(path: str, stage_of: StageOf) -> tuple[int, str] | None:
    """(stage, module within the stage) of a parameter, None outside the trunk."""
    first, *names = path.split("/")
    for end in range(1, len(names) if first == "fusion" else 0):
        stage = stage_of("/".join(names[:end]))
        if stage is not None:
            return stage, names[end]
    return None


def _layer(location: tuple[int, str] | None) -> tuple[int, ...] | None:
    """Sort key of a layer, ascending with depth; None for distance 0."""
    if location is None or location[1] in AFTER_BLOCKS:
        return None
    stage, module = location
    block = BLOCK.fullmatch(module)
    return (stage, -1) if block is None else (stage, *(int(n) for n in block.groups() if n))


def _ranks(keys: dict[str, tuple | None]) -> dict[str, int]:
    """Rank of each key in descending order, from 1; 0 for None."""
    order = sorted({key for key in keys.values() if key is not None}, reverse=True)
    if not order:
        raise ValueError(
            "layer_decay and unfreeze_every need trainable parameters in the stages of the trunk, "
            "and this model has none; remove these options, or freeze less"
        )
    rank = {key: 1 + i for i, key in enumerate(order)}
    return {path: 0 if key is None else rank[key] for path, key in keys.items()}
