"""Conversion of labels and predictions to RGB, in NumPy, and charts with a value per class."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num, UInt8

RGB = UInt8[np.ndarray, "H W 3"]
"""RGB image."""
Color = UInt8[np.ndarray, "3"]
"""RGB color."""

MAX_NAMES = 60
"""Maximum number of classes with names in a chart."""
_COUNTS = 20
"""Maximum number of classes of a confusion matrix with numbers."""
_NAME_WIDTH, _BAR_NAME_WIDTH = 40, 24
"""Characters of a line of a class name."""


def as_rgb(image: Num[np.ndarray, "H W C"]) -> RGB:
    """Converts an image of the data: uint8, or floating in 0..1 or 0..255."""
    image = np.asarray(image)
    if image.dtype != np.uint8:
        scale = 255.0 if image.max(initial=0) <= 1 else 1.0
        image = np.clip(np.round(image * scale), 0, 255).astype(np.uint8)
    channels = image[..., :3] if image.shape[-1] >= 3 else image[..., :1]
    return np.broadcast_to(channels, (*image.shape[:2], 3)).copy()


def class_colors(count: int) -> UInt8[np.ndarray, "N 3"]:
    """Returns a color per class; the hues of consecutive classes differ strongly."""
    from matplotlib.colors import hsv_to_rgb

    index = np.arange(count)
    hue, value = (index * 0.618034) % 1, 1 - 0.25 * (index % 3)
    hsv = np.stack([hue, np.full(count, 0.7), value], -1)
    return np.round(255 * hsv_to_rgb(hsv)).astype(np.uint8)


def class_legend(names: tuple[str, ...]) -> tuple[tuple[str, Color], ...]:
    """Returns the legend of `class_colors`."""
    return tuple(zip(names, class_colors(len(names)), strict=True))


def paint_classes(classes: Int[np.ndarray, "H W"], count: int) -> RGB:
    """Renders a class map; black for values outside of 0..count - 1."""
    colors = np.concatenate([class_colors(count), np.zeros((1, 3), np.uint8)])
    classes = np.asarray(classes)
    return colors[np.where((classes >= 0) & (classes < count), classes, count)]


def paint_values(values: Float[np.ndarray, "H W"], low: float, high: float, colors: str) -> RGB:
    """Renders values by a matplotlib color map from `low` to `high`; black where not finite."""
    from matplotlib import colormaps

    values = np.asarray(values, np.float64)
    finite = np.isfinite(values)
    fraction = np.clip((np.where(finite, values, low) - low) / (high - low), 0, 1)
    rgb = np.round(255 * colormaps[colors](fraction)[..., :3])
    return np.where(finite[..., None], rgb, 0).astype(np.uint8)


def draw_box(rgb: RGB, box: Float[np.ndarray, "4"], color: Color) -> None:
    """Outlines the box (y0, x0, y1, x1), in pixels, in place, clipped to the image."""
    height, width = rgb.shape[:2]
    if not np.isfinite(box).all():
        return
    y0, x0 = np.clip(np.floor(box[:2]), 0, (height - 1, width - 1)).astype(int)
    y1, x1 = np.clip(np.ceil(box[2:]) - 1, 0, (height - 1, width - 1)).astype(int)
    if y1 >= y0 and x1 >= x0:
        rgb[[y0, y1], x0 : x1 + 1] = color
        rgb[y0 : y1 + 1, [x0, x1]] = color


def draw_dot(rgb: RGB, center: Float[np.ndarray, "2"], color: Color) -> None:
    """Draws a disc at (y, x), in pixels, in place, with a diameter of 1/20 of the image."""
    radius = max(1.5, max(rgb.shape[:2]) / 40)
    y, x = np.indices(rgb.shape[:2]) + 0.5
    rgb[(y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2] = color


def draw_confusion(axis: Any, confusion: Int[np.ndarray, "C C"], names: Sequence[str]) -> None:
    """Draws a confusion matrix; the figure grows with the number of classes, up to `MAX_NAMES`."""
    count = len(confusion)
    fractions = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    image = axis.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    axis.grid(False)
    size = 9.5 if count <= 12 else 7.0
    if count <= MAX_NAMES:
        labels = [_wrap(name, _NAME_WIDTH) for name in names]
        axis.set_xticks(range(count), labels, rotation=90 if max(map(len, names)) > 2 else 0)
        axis.set_yticks(range(count), labels)
        axis.tick_params(labelsize=size)
        lines = max(label.count("\n") for label in labels) + 1
        room = size * (0.62 * min(_NAME_WIDTH, max(map(len, names))) + 2) / 72
        side = max(3.4, count * 1.25 * lines * size / 72) + room
        if side > axis.figure.get_figwidth():
            axis.figure.set_size_inches(side + (count > _COUNTS), side)
    if count <= _COUNTS:
        for row, column in np.argwhere(confusion):
            color = "white" if fractions[row, column] > 0.5 else "black"
            text = {"ha": "center", "va": "center", "fontsize": size - 0.5}
            axis.text(column, row, confusion[row, column], color=color, **text)
    else:
        axis.figure.colorbar(image, ax=axis, label="share of the true class", shrink=0.5)
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")


def draw_bars(axis: Any, values: Float[np.ndarray, " C"], names: Sequence[str], label: str) -> None:
    """Draws a value in 0..1 per class as bars, "n/a" for NaN; of many classes, the lowest."""
    order = np.arange(len(values))
    if len(order) > MAX_NAMES:
        order = np.argsort(values, kind="stable")[:MAX_NAMES]
        label = f"{label}: the lowest {MAX_NAMES} of {len(values)} classes"
    rows, labels = range(len(order)), [_wrap(names[int(i)], _BAR_NAME_WIDTH) for i in order]
    axis.barh(rows, np.nan_to_num(values[order]))
    for row, value in zip(rows, values[order], strict=True):
        text = f"{value:.3f}" if np.isfinite(value) else "n/a"
        axis.text(np.nan_to_num(value) + 0.01, row, text, va="center", fontsize=8)
    axis.set_yticks(rows, labels, fontsize=8.5)
    axis.set_xlim(0, 1.12)
    axis.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axis.grid(False, axis="y")
    axis.invert_yaxis()
    axis.margins(y=0.01)
    axis.set_xlabel(label)
    width, height = axis.figure.get_size_inches()
    lines = sum(text.count("\n") + 1 for text in labels)
    axis.figure.set_size_inches(width, max(height if len(order) > 8 else 2.2, 0.9 + 0.19 * lines))


def _wrap(name: str, width: int) -> str:
    """Breaks a class name into lines of a number of characters."""
    return "\n".join(textwrap.wrap(name, width)) or name
