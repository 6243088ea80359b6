"""Networks, shapes and batches that the benchmarks measure in several libraries."""

import argparse
import dataclasses
import functools
import json
import statistics
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Workload:
    """Network and batch of one benchmark.

    Attributes:
      trunk: Name in `mtljax.models.TRUNKS`.
      options: Arguments of the trunk.
      classes: Classes of each classification task; None: segmentation, depth and surface normals
        with an ASPP head each.
      shape: Batch size, height and width.
      decoder_width: Channels of the ASPP heads.
    """

    trunk: str
    shape: tuple[int, int, int]
    classes: tuple[int, ...] | None = None
    options: tuple[tuple[str, Any], ...] = ()
    decoder_width: int = 256

    @property
    def batch_size(self) -> int:
        return self.shape[0]

    def with_tasks(self, count: int) -> "Workload":
        """The same network with the first `count` tasks."""
        if self.classes is None:
            raise ValueError("the number of tasks of a dense workload is fixed")
        return dataclasses.replace(self, classes=self.classes[:count])


THREE = (1000, 100, 10)
WORKLOADS = {
    "vit": Workload("vit_b", (128, 224, 224), THREE),
    "resnet50": Workload("resnet50", (256, 224, 224), THREE),
    "nyuv2": Workload("resnet50", (8, 288, 384), options=(("output_stride", 8),)),
    "celeba": Workload("resnet18", (256, 64, 64), (2,) * 40),
}
SMALL_RESNET = (("depths", (1, 1, 1, 1)),)
SMALL_VIT = (("image_size", 32), ("width", 48), ("heads", 3), ("depth", 4))
SMALL = {
    "vit": Workload("vit_b", (2, 32, 32), THREE, SMALL_VIT),
    "resnet50": Workload("resnet50", (2, 32, 32), THREE, SMALL_RESNET),
    "nyuv2": Workload(
        "resnet50", (2, 32, 48), None, (("output_stride", 8), *SMALL_RESNET), decoder_width=16
    ),
    "celeba": Workload("resnet18", (2, 32, 32), (2,) * 40, SMALL_RESNET),
}
"""Tiny shapes, to try the programs on a CPU."""
DENSE_OUTPUTS = {"segmentation": 13, "depth": 1, "normals": 3}
CENTER_DEPTH = 2.7


def parse_variant(text):
    """Returns (name, {option: value}) of a variant such as `pcgrad:level=features,tasks=3`."""
    name, _, options = text.partition(":")
    pairs = (option.partition("=") for option in options.split(",") if option)
    convert = lambda value: int(value) if value.isdigit() else value
    return name, {key: convert(value) if found else True for key, found, value in pairs}


def make_batch(workload):
    """Returns (image [B, H, W, 3], [labels of a task]) as NumPy arrays."""
    rng, shape = np.random.default_rng(0), workload.shape
    image = rng.normal(size=(*shape, 3)).astype(np.float32)
    if workload.classes is not None:
        draw = lambda classes: rng.integers(0, classes, size=shape[0]).astype(np.int32)
        return image, [draw(classes) for classes in workload.classes]
    normals = rng.normal(size=(*shape, 3)).astype(np.float32)
    return image, [
        rng.integers(0, DENSE_OUTPUTS["segmentation"], size=shape).astype(np.int32),
        rng.uniform(0.5, 8, size=shape).astype(np.float32),
        normals / np.linalg.norm(normals, axis=-1, keepdims=True),
    ]


def run_worker(measure, side, description):
    """Prints a JSON row per variant of the command line; an error of a variant is a row, too.

    Args:
      measure: `(workload, name, options, seconds)` -> row.
      side: Name of the library in the rows.
      description: Text of `--help`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("variants", nargs="*", default=["ew"])
    parser.add_argument("--small", action="store_true", help="tiny shapes")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured per variant")
    flags = parser.parse_args()

    def measure_variant(variant):
        name, options = parse_variant(variant)
        workload = (SMALL if flags.small else WORKLOADS)[flags.workload]
        if "tasks" in options:
            workload = workload.with_tasks(options.pop("tasks"))
        return measure(workload, name, options, flags.seconds)

    for variant in flags.variants:
        print_row(flags.workload, side, variant, functools.partial(measure_variant, variant))


def run_cases(workload, cases, description):
    """Prints a JSON row per case of the command line.

    Args:
      workload: Name in the rows.
      cases: Name -> function of `small`, True for tiny shapes, that returns the row.
      description: Text of `--help`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", default=list(cases), help=", ".join(cases))
    parser.add_argument("--small", action="store_true", help="tiny shapes, or few tests")
    flags = parser.parse_args()
    for case in flags.cases:
        print_row(workload, "mtljax", case, lambda case=case: cases[case](flags.small))


def print_row(workload, side, variant, measure):
    """Prints what `measure()` returns, or its error: other variants may still run."""
    row = {"workload": workload, "side": side, "variant": variant}
    try:
        row |= measure()
    except Exception as error:  # out of memory, say
        row["error"] = f"{type(error).__name__}: {str(error).strip()[:300]}"
    print(json.dumps(row), flush=True)


def timings(workload, times):
    """Returns the part of a row that is computed from the seconds per step of each round."""
    milliseconds = [1e3 * seconds for seconds in times]
    median = statistics.median(milliseconds)
    return {
        "images_per_second": workload.batch_size / median * 1e3,
        "milliseconds": median,
        "spread": [min(milliseconds), max(milliseconds)],
    }
