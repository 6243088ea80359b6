"""Verbs `evaluate`, `predict` and `export`."""

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from mtljax.cli.flags import parse
from mtljax.utils.text import shortened
from mtljax.utils.urls import named

if TYPE_CHECKING:
    from mtljax.runs.load import TrainedModel


MANY = 100
"""Maximum number of images that are predicted without a message before."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _RunFlags:
    run: Path
    """Run folder, or its URL in a bucket."""
    verify: Path | None = None
    """Public key (PEM): load the run only if the owner of this key signed it."""
    preference: str = ""
    """Preference over the tasks, one number >= 0 for each in order, such as 0.3,0.7, for a run
    trained with --condition. If omitted, equal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateFlags(_RunFlags):
    """Computes the metrics of a trained run, at its best checkpoint, on one split."""

    split: Literal["train", "validation", "test", "all"] = "test"
    """Split to evaluate; all: the three together."""
    source: str | None = None
    """Other data source to evaluate, such as folder:other; see `list sources`. none: that of the
    run. Image sizes must be those of the training images: add size=(HEIGHT,WIDTH)."""
    tasks: tuple[str, ...] = ()
    """Tasks to evaluate, separated by commas, such as a,b, if the source lacks some labels. If
    omitted, all."""
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    """Task -> name of its labels in the source, if that differs from the run's."""
    calibrate: bool = False
    """Also fit a temperature for the probabilities of each classification task, on the validation
    split of the run's data, report their calibration error on the evaluated split, and store the
    temperatures in RUN/calibration.json, which `predict` uses."""
    attack: str = ""
    """Also evaluate under this adversarial attack, as in `list attacks`: fgsm, pgd or
    pgd:steps=20."""
    eps: float = 8 / 255
    """Maximum change of a pixel by the attack, as a fraction of the range from black to white."""
    output: Path | None = None
    """JSON file to write; if omitted, RUN/evaluation-SPLIT.json, or -SPLIT-SOURCE.json, with the
    attack and the preference at the end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictFlags(_RunFlags):
    """Predicts all tasks for image files with a trained run, at its best checkpoint."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Image files of any size, folders of them, or quoted patterns such as 'photos/*.jpg'."""
    output: Path | None = None
    """JSON file to write, with maps and pictures next to it; if omitted, RUN/predictions.json."""
    overlay: bool = False
    """Write a PNG of each image with its predicted map, boxes or points on top."""
    top_k: int = 5
    """Number of the most probable classes that the JSON lists in order."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFlags(_RunFlags):
    """Writes a trained run, at its best checkpoint, in a format that can be used without mtljax."""

    to: Literal["stablehlo", "onnx", "safetensors"]
    """Format; `list exports` describes them."""
    tasks: tuple[str, ...] = ()
    """Tasks to export, separated by commas, such as a,b; weights that only other tasks use are left
    out. If omitted, all."""
    output: Path | None = None
    """File to write; if omitted, RUN/NAME.FORMAT. If encrypted, .age is appended."""
    encrypt: bool = False
    """Encrypt in the age format; exports of encrypted runs are always encrypted. The key is in
    MTLJAX_KEY_FILE, MTLJAX_KEY or MTLJAX_PASSPHRASE."""


def _load(flags: _RunFlags) -> "TrainedModel":
    """Loads the run at the requested preference, and prints that of a conditioned run."""
    from mtljax.runs.load import load_run
    from mtljax.utils.terminal import print_line

    trained = load_run(flags.run, verify=flags.verify)
    if flags.preference:
        try:
            values = [float(part) for part in flags.preference.split(",")]
        except ValueError:
            raise ValueError(
                f"--preference {shortened(flags.preference)}: numbers separated by commas, such as "
                "0.3,0.7, are required"
            ) from None
        trained = trained.at_preference(values)
    if trained.preference is not None:
        shares = ", ".join(f"{name} {share:.4g}" for name, share in trained.preference.items())
        print_line(
            f"preference: {shares}" + ("" if flags.preference else " (--preference sets it)")
        )
    return trained


def _names(parts: Sequence[str]) -> list[str]:
    """Returns the names in a flag that takes names separated by commas or spaces."""
    return [name for part in parts for name in part.split(",") if name]


def evaluate_verb(arguments: list[str]) -> int:
    """Runs `evaluate` and returns the exit status."""
    flags = parse(EvaluateFlags, arguments, "evaluate")
    from mtljax import compilation
    from mtljax.evaluation.predict import evaluate_run, restricted
    from mtljax.evaluation.tables import metrics_table
    from mtljax.step.attacks import make_attack
    from mtljax.utils.files import check_output, write_json
    from mtljax.utils.terminal import console, print_line

    compilation.use_compile_cache()
    tasks = _names(flags.tasks)
    if (tasks or flags.labels) and flags.calibrate:
        raise ValueError("--calibrate is for all tasks: leave out --tasks and --labels")
    if flags.preference and flags.calibrate:
        raise ValueError("--calibrate is for the equal preference: leave out --preference")
    trained = restricted(_load(flags), tasks, flags.labels)
    other = "" if flags.source is None else "-" + re.sub(r"[^\w.]+", "_", flags.source)[-60:]
    suffix = f"-{flags.attack.partition(':')[0]}" if flags.attack else ""
    suffix += "" if not flags.preference else "-" + re.sub(r"[^\w.]+", "_", flags.preference)
    output = flags.output or flags.run / f"evaluation-{flags.split}{other}{suffix}.json"
    check_output(output)
    attack = make_attack(flags.attack or None, trained.low, trained.high, eps=flags.eps)
    place = f"{flags.split} split" + ("" if flags.source is None else f" of {flags.source}")
    print_line(f"evaluating the {place}")
    metrics = evaluate_run(trained, flags.split, attack, flags.source)
    console.print(metrics_table(named(f"{flags.run} at step {trained.step}, {place}"), **metrics))
    content: dict[str, Any] = {"step": trained.step, "split": flags.split, **metrics}
    if flags.source is not None:
        content["source"] = flags.source
    if trained.preference is not None:
        content["preference"] = trained.preference
    if attack is not None:
        content["attack"] = {"attack": flags.attack, "eps": flags.eps}
    write_json(output, content)
    print(named(f"written to {output}"))
    if flags.calibrate:
        _calibrate(trained, flags)
    return 0


def _calibrate(trained: "TrainedModel", flags: EvaluateFlags) -> None:
    """Fits temperatures, prints their effect and stores them in the run folder."""
    from mtljax.evaluation.calibration import calibrate, write_calibration
    from mtljax.evaluation.predict import open_split
    from mtljax.evaluation.tables import calibration_table
    from mtljax.utils.terminal import console

    is_fitted = flags.split == "validation" and flags.source is None
    held_out = None if is_fitted else open_split(trained, flags.split, flags.source)
    calibrations = calibrate(trained, open_split(trained, "validation"), held_out)
    if not calibrations:
        print("no task has probabilities to calibrate")
        return
    console.print(calibration_table(calibrations, "" if held_out is None else flags.split))
    print(named(f"written to {write_calibration(flags.run, trained.step, calibrations)}"))


def predict_verb(arguments: list[str]) -> int:
    """Runs `predict` and returns the exit status."""
    flags = parse(PredictFlags, arguments, "predict")
    if not flags.images:
        raise ValueError("missing images: predict --run DIR IMAGE ... (files, folders or patterns)")
    if flags.top_k < 1:
        raise ValueError(f"--top-k must be >= 1, not {flags.top_k}")
    from mtljax import compilation
    from mtljax.cli.tables import predictions_table
    from mtljax.evaluation.calibration import read_temperatures
    from mtljax.evaluation.predict_files import (
        Options,
        describe_failures,
        find_images,
        predict_files,
    )
    from mtljax.utils.files import check_output
    from mtljax.utils.terminal import console, print_line

    compilation.use_compile_cache()
    trained = _load(flags)
    output = flags.output or flags.run / "predictions.json"
    check_output(output)
    temperatures = read_temperatures(flags.run, trained.step, trained.experiment.tasks)
    options = Options(overlay=flags.overlay, top_k=flags.top_k, temperatures=temperatures)
    images = find_images(flags.images)
    if len(images) > MANY:
        print_line(f"predicting {len(images):,} images")
    summary = predict_files(trained, images, output, options)
    console.print(predictions_table(summary.entries))
    if any(entry.get("size") != entry.get("model_size") for entry in summary.entries):
        size = " x ".join(map(str, trained.shape[:2]))
        print_line(f"images were resized to {size} for the network; numbers are not converted")
    rest = summary.total - len(summary.failed) - len(summary.entries)
    more = f"{rest} more images, and all predictions, " * (rest > 0)
    print(named(f"{more}written to {output}"))
    if summary.failed:
        print(f"mtljax: {describe_failures(summary)}", file=sys.stderr)
        return 2
    return 0


def export_verb(arguments: list[str]) -> int:
    """Runs `export` and returns the exit status."""
    flags = parse(ExportFlags, arguments, "export")
    from mtljax.cli.tables import export_table
    from mtljax.exporters.export import default_output, export
    from mtljax.utils.terminal import console

    trained = _load(flags)
    output = flags.output or default_output(flags.run, trained, flags.to)
    tasks = _names(flags.tasks)
    exported = export(trained, flags.to, output, tasks=tasks, encrypt=flags.encrypt)
    console.print(export_table(exported.description))
    for file in exported.files:
        print(named(f"written to {file}"))
    return 0
