"""Image reconstruction: an image for an image."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import scipy  # subpackages are imported on first use, which keeps start-up fast
from jaxtyping import Array, Float

from mtljax.tasks import checks, drawing
from mtljax.tasks.dense import PixelLosses, PixelTask
from mtljax.tasks.metric import Metrics, MetricSpec, TaskMetrics
from mtljax.tasks.streaming import PerExample
from mtljax.tasks.warps import Pixels, Warp

Kind = Literal["l1", "l2"]
"""Kind of loss; see `Reconstruction`."""
Images = Float[Array, "B H W C"]
"""Batch of images."""
MAX_PSNR = 100.0
"""PSNR in decibels of images without any error, for which the formula gives infinity."""
_OFFSETS = np.arange(-5, 6)
_WINDOW = np.exp(-(_OFFSETS**2) / (2 * 1.5**2))
_WINDOW /= _WINDOW.sum()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction(PixelTask):
    """An image. Output and labels: [B, H, W, C], from 0 to `peak`; both sides at least 11 pixels.

    Metrics, computed per image and averaged over images, of predictions clipped to 0..`peak`:

        psnr  10 log10(peak^2 / mean squared error), in decibels, at most 100
        ssim  mean over channels and over all positions of an 11 x 11 Gaussian window (sigma 1.5)
              within the image; K1 = 0.01, K2 = 0.03, variances over the window's weights (not
              corrected for the sample size)

    Both are computed on the host in 64 bits: a window's variance is a difference of large numbers.

    References:
      Wang et al., 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity"
    """

    channels: int = 3
    """Number of channels of the image."""
    peak: float = 1.0
    """Maximum value of a pixel."""
    kind: Kind = "l1"
    """Loss of a pixel: mean over channels of |e| or e^2, e the error as a fraction of `peak`."""

    main_metric = "psnr"
    one_file_type = False
    accepts_lossy_files = True
    metric_specs = {
        "psnr": MetricSpec("PSNR", higher_is_better=True),
        "ssim": MetricSpec("SSIM", higher_is_better=True),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.require_choice(self, "kind", Kind)
        checks.require_least(self, 1, "channels")
        checks.require_positive(self, "peak")

    def head(self) -> nn.Module:
        return self.dense_head(outputs=self.channels, center=self.peak / 2, scale=self.peak)

    def pixel_losses(self, output: Images, label: Array) -> PixelLosses:
        error = (output - label.astype(output.dtype)) / self.peak
        losses = jnp.abs(error) if self.kind == "l1" else error**2
        return losses.mean(-1), jnp.ones(label.shape[:-1], bool)

    @property
    def metrics(self) -> Metrics:
        return _Quality(self.peak)

    def check(self, labels: np.ndarray) -> None:
        checks.require_shape(self.name, labels, (None, None, self.channels))
        if min(labels.shape[1:3]) < len(_WINDOW):
            raise ValueError(
                f"task {self.name!r}: images of {labels.shape[1]} x {labels.shape[2]} pixels; "
                f"both sides must be >= {len(_WINDOW)}"
            )
        valid = np.isfinite(labels) & (labels >= 0) & (labels <= self.peak)
        checks.require(self.name, valid, labels, f"must be in 0..{self.peak:g}")

    def constant_output(self, labels: np.ndarray, size: Pixels) -> Float[np.ndarray, "H W C"]:
        """Mean color."""
        mean = labels.mean((0, 1, 2), dtype=np.float64).astype(np.float32)
        return np.broadcast_to(mean, (*size, self.channels))

    def parse(self, value: Any) -> Float[np.ndarray, "H W C"]:
        """Integers of 8 and 16 bits are scaled from black..white to 0..`peak`."""
        values = np.asarray(value)
        white = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(values.dtype)
        scale = self.peak / white if white else 1.0
        return (values * np.float32(scale)).astype(np.float32)

    def placeholder(self, size: Pixels) -> Float[np.ndarray, "H W C"]:
        return np.zeros((*size, self.channels), np.float32)

    def warp(self, label: Array, warp: Warp) -> Array:
        return warp.smooth(label)

    def mix(self, label: Array, other: Array, weight: Float[Array, ""]) -> Array:
        return weight * label + (1 - weight) * other

    def decode(self, output: Images) -> Images:
        return jnp.clip(output, 0, self.peak)

    def picture(self, value: Any, image: np.ndarray) -> drawing.RGB:
        return drawing.as_rgb(np.clip(np.asarray(value, np.float64) / self.peak, 0, 1))


class _Quality(PerExample):
    """PSNR and SSIM of each image."""

    names = ("psnr", "ssim")

    def __init__(self, peak: float):
        self.peak = peak

    def describe(self, output: Images, label: Images) -> dict[str, Array]:
        return {"output": jnp.clip(output, 0, self.peak), "label": label}

    def compress(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        unit = lambda image: np.asarray(image, np.float64) / self.peak
        pairs = [(unit(a), unit(b)) for a, b in zip(rows["output"], rows["label"], strict=True)]
        each = lambda metric: np.asarray([metric(a, b) for a, b in pairs])
        return {"psnr": each(psnr), "ssim": each(ssim)}

    def compute_from_rows(self, rows: dict[str, np.ndarray]) -> TaskMetrics:
        return {name: float(values.mean()) for name, values in rows.items()}


def psnr(a: Float[np.ndarray, "H W C"], b: Float[np.ndarray, "H W C"]) -> float:
    """Peak signal-to-noise ratio of two images in 0..1, in decibels."""
    square = float(((a - b) ** 2).mean())
    return min(-10 * np.log10(square), MAX_PSNR) if square > 0 else MAX_PSNR


def ssim(a: Float[np.ndarray, "H W C"], b: Float[np.ndarray, "H W C"]) -> float:
    """Structural similarity of two images in 0..1."""
    mean_a, mean_b = _blur(a), _blur(b)
    variance_a, variance_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float((luminance * (2 * covariance + c2) / (variance_a + variance_b + c2)).mean())


def _blur(x: Float[np.ndarray, "H W C"]) -> Float[np.ndarray, "h w C"]:
    reach = len(_WINDOW) // 2
    correlate = scipy.ndimage.correlate1d
    x = correlate(correlate(x, _WINDOW, 0), _WINDOW, 1)
    return x[reach:-reach, reach:-reach]
