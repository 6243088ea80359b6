"""Images sorted into a folder per class."""

from collections.abc import Sequence

from mtljax.data.base import Source, Wanted
from mtljax.data.rows import FileRows
from mtljax.data.sources.folder import by_hash, source_of_rows
from mtljax.data.sources.paths import find_folder
from mtljax.data.sources.size import read_size

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def class_folders(
    path: str,
    size: tuple[int, ...] | None = None,
    channels: int = 3,
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    *,
    wanted: Sequence[Wanted],
) -> Source:
    """A folder of images per class; `class` is the label, its number in alphabetical order.

    Args:
      path: The folder with the classes' folders in it, here or in `$MTLJAX_DATA`.
      size: (height, width) that images are brought to; all must have one size if left out.
      channels: 3, or 1 for grey.
      validation, test: Shares of the images, by a hash of each file's name.
      seed: Of the split.
      wanted: What the tasks want.
    """
    where = find_folder(path)
    brought_to = read_size(size, "class_folders")
    classes = sorted(child.name for child in where.iterdir() if child.is_dir())
    files = [
        (file, number)
        for number, name in enumerate(classes)
        for file in sorted((where / name).iterdir())
        if file.suffix.lower() in IMAGES
    ]
    if not files:
        raise ValueError(f"{where} has no folders with images in them, one per class")
    for task, key in wanted:
        if key != "class":
            raise ValueError(
                f"source class_folders has no labels {key!r} for task {task.name!r}; its only one "
                "is 'class'"
            )
        count = getattr(task, "num_classes", len(classes))
        if count != len(classes):
            raise ValueError(
                f"{where} has {len(classes)} classes, but task {task.name!r} num_classes={count}"
            )
    whole = FileRows(
        table=where,
        images=tuple(file for file, _ in files),
        numbers=tuple(range(1, len(files) + 1)),
        columns=tuple(tuple(number for _, number in files) for _ in wanted),
        tasks=tuple(task for task, _ in wanted),
        channels=channels,
        size=brought_to,
    )
    whole.check()
    names = [f"{file.parent.name}/{file.name}" for file, _ in files]
    return source_of_rows(whole, by_hash(names, validation, test, seed))
