"""How far from the heads a parameter is: what layer-wise decay and gradual unfreezing go by."""

import re
from collections.abc import Callable, Iterable

StageOf = Callable[[str], int | None]
"""Which stage of the trunk a module of the fusion is, or is a copy of; `Fusion.stage_of`."""

BLOCK = re.compile(r"(?:block|Conv|Dense|Norm)_(\d+)(?:_(\d+))?")
AFTER_BLOCKS = ("norm", "head")
"""What ends a trunk: the last normalisation, a last convolution."""
NO_STAGES = (
    "layer_decay and unfreeze_every go by the stages of the trunk, of which none learns here; "
    "leave them out, or freeze less"
)


def distances(paths: Iterable[str], stage_of: StageOf) -> dict[str, int]:
    """How many layers each parameter is away from the heads.

    A layer is a block of the trunk, or what a stage has before its blocks. Heads, what the fusion
    adds, and what ends the trunk are at 0, the last block at 1: the convention of BEiT and timm.
    All copies of a stage are equally far.

    Raises:
      ValueError: None of them is in a stage of the trunk.
    """
    layers = {path: _layer(_place(path, stage_of)) for path in paths}
    return _ranks(layers)


def turns(paths: Iterable[str], stage_of: StageOf) -> dict[str, int]:
    """The same, by stages: 0 for heads and fusion, 1 for the trunk's last stage, and so on.

    Raises:
      ValueError: None of them is in a stage of the trunk.
    """
    places = {path: _place(path, stage_of) for path in paths}
    return _ranks({path: place and place[:1] for path, place in places.items()})


def is_in_part(path: str, part: str, stage_of: StageOf) -> bool:
    """Whether a parameter is in a part of the model: `trunk`, `fusion` (trunk included), or `all`.

    Example:
      >>> is_in_part("fusion/trunk_0/kernel", "trunk", {"trunk_0": 0}.get)
      True
    """
    if part == "trunk":
        return _place(path, stage_of) is not None
    return part == "all" or path.startswith("fusion/")


def _place(path: str, stage_of: StageOf) -> tuple[int, str] | None:
    """(stage, what in it) of a parameter, None outside the trunk."""
    first, *names = path.split("/")
    for end in range(1, len(names) if first == "fusion" else 0):
        stage = stage_of("/".join(names[:end]))
        if stage is not None:
            return stage, names[end]
    return None


def _layer(place: tuple[int, str] | None) -> tuple[int, ...] | None:
    """What sorts as the layers follow each other."""
    if place is None or place[1] in AFTER_BLOCKS:
        return None
    stage, module = place
    block = BLOCK.fullmatch(module)
    return (stage, -1) if block is None else (stage, *(int(n) for n in block.groups() if n))


def _ranks(keys: dict[str, tuple | None]) -> dict[str, int]:
    """1 for the highest key, 2 for the next; 0 where there is none."""
    order = sorted({key for key in keys.values() if key is not None}, reverse=True)
    if not order:
        raise ValueError(NO_STAGES)
    rank = {key: 1 + i for i, key in enumerate(order)}
    return {path: 0 if key is None else rank[key] for path, key in keys.items()}
