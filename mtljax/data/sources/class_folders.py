"""Source of images in one folder per class."""

from collections.abc import Sequence

from mtljax.data.base import LabelRequest, Source, require_classes, require_labels
from mtljax.data.file_examples import FileExamples, source_of_files, split_by_hash
from mtljax.data.images import FILES
from mtljax.data.lazy import tasks_of
from mtljax.data.sources.arguments import find_folder, read_size


def class_folders(
    path: str,
    size: tuple[int, ...] | None = None,
    channels: int = 3,
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    *,
    requests: Sequence[LabelRequest],
) -> Source:
    """Folders of images, one per class: label `class`, the index in alphabetical order.

    Args:
      path: Folder of the class folders, relative to the working directory or `$MTLJAX_DATA`.
      size: (height, width) to resize images to; if omitted, all images must have one size.
      channels: 3 for color, 1 for gray, or the number of bands of TIFF and npy files.
      validation, test: Share of these images, selected by a hash of the file name.
      seed: Seed of the split.
    """
    root = find_folder(path)
    image_size = read_size(size, "class_folders")
    names = sorted(child.name for child in root.iterdir() if child.is_dir())
    files, classes = [], []
    for index, name in enumerate(names):
        images = [f for f in sorted((root / name).iterdir()) if f.suffix.lower() in FILES]
        files += images
        classes += [index] * len(images)
    if not files:
        raise ValueError(f"{root} has no folders of images, one per class")
    require_labels("source class_folders", requests, ["class"])
    tasks = tasks_of(requests)
    for task in tasks:
        require_classes(str(root), task, len(names))
    numbers, columns = tuple(range(1, len(files) + 1)), (tuple(classes),) * len(requests)
    examples = FileExamples(root, tuple(files), numbers, columns, tasks, channels, image_size)
    examples.check()
    keys = [f"{file.parent.name}/{file.name}" for file in files]
    return source_of_files(examples, split_by_hash(keys, validation, test, seed))
