"""Metric names and values as text."""

import math

from mtljax.utils.text import number

METRIC_NAMES = {
    "loss": "loss",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "mae": "mean absolute error",
    "rmse": "root mean square error",
    "r2": "R²",
    "miou": "mean IoU",
    "abs_err": "mean absolute error",
    "abs_rel": "mean relative error",
    "log_rmse": "root mean square log error",
    "mean": "mean angle",
    "median": "median angle",
    "within_11.25": "within 11.25°",
    "within_22.5": "within 22.5°",
    "within_30": "within 30°",
    "max_f": "best F",
    "ods": "F at the best threshold of all",
    "ois": "F at each image's best threshold",
    "ods_threshold": "best threshold of all",
    "map": "mean average precision",
    "map_50": "mean average precision at IoU 0.5",
    "map_75": "mean average precision at IoU 0.75",
    "f1": "mean F1",
    "nme": "normalised mean error",
    "pck": "share of points found",
    "auc": "area under the curve of points found",
    "psnr": "PSNR",
    "ssim": "SSIM",
}
"""What a person calls a metric; others are called by their own name."""


def metric_name(metric: str) -> str:
    """What a person calls a metric."""
    return METRIC_NAMES.get(metric, metric.replace("_", " "))


def metric_value(metric: str, value: float | None, digits: int = 3) -> str:
    """A metric's value with its unit: an accuracy in percent, an angle in degrees."""
    if metric in ("mean", "median") and value is not None and math.isfinite(value):
        return f"{number(value, digits)}°"
    if metric.endswith("accuracy") and value is not None and math.isfinite(value):
        return f"{100 * value:.{max(digits - 2, 0)}f} %"
    if metric == "r2" and value is not None and abs(value) < 1e-5:
        value = 0.0  # of one answer for all it is that, but for rounding
    return number(value, digits)


def metric_tick(metric: str, value: float) -> str:
    """A metric's value at a mark of an axis, where round numbers stand."""
    return f"{100 * value:.6g} %" if metric.endswith("accuracy") else f"{value:.6g}"
