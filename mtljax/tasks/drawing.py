"""Conversion of labels and predictions to RGB, in NumPy."""

import numpy as np
from jaxtyping import Float, Int, Num, UInt8

RGB = UInt8[np.ndarray, "H W 3"]
Color = UInt8[np.ndarray, "3"]


def as_rgb(image: Num[np.ndarray, "H W C"]) -> RGB:
    """Converts an image of the data: uint8, or floating in 0..1 or 0..255."""
    image = np.asarray(image)
    if image.dtype != np.uint8:
        scale = 255.0 if image.max(initial=0) <= 1 else 1.0
        image = np.clip(np.round(image * scale), 0, 255).astype(np.uint8)
    channels = image[..., :3] if image.shape[-1] >= 3 else image[..., :1]
    return np.broadcast_to(channels, (*image.shape[:2], 3)).copy()


def class_colors(count: int) -> UInt8[np.ndarray, "N 3"]:
    """Returns a colour per class; the hues of consecutive classes differ strongly."""
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
    """Renders values by a matplotlib colour map from `low` to `high`; black where not finite."""
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
