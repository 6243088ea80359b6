"""The size that a source brings its images to."""

from mtljax.tasks.warps import Pixels


def read_size(size: tuple[int, ...] | None, source: str) -> Pixels | None:
    """A source's argument `size`; None where images stay as they are.

    Raises:
      ValueError: It is not (height, width).
    """
    if size is None:
        return None
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"source {source}: size must be (height, width), not {size}")
    return size[0], size[1]
