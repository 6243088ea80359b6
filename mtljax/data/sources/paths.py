"""Where data is on this machine."""

import os
from pathlib import Path

VARIABLE = "MTLJAX_DATA"
"""Names the folder that relative paths of data are also looked for in."""


def find_folder(path: str) -> Path:
    """The folder called so, from here or in `$MTLJAX_DATA`.

    Raises:
      ValueError: There is none.
    """
    home = os.environ.get(VARIABLE)
    given = Path(path).expanduser()
    tried = [given, *([Path(home) / given] if home else [])]
    for folder in tried:
        if folder.is_dir():
            return folder
    hint = "" if home or given.is_absolute() else f" (or set {VARIABLE} to the folder it is in)"
    raise ValueError(f"there is no folder {' nor '.join(map(str, tried))}{hint}")
