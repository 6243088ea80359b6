"""Verbs `evaluate`, `predict` and `export`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mtljax.cli.flags import parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class _RunFlags:
    run: Path
    """Run folder."""
    verify: Path | None = None
    """Public key (PEM): load the run only if the owner of this key signed it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateFlags(_RunFlags):
    """Computes the metrics of a trained run, at its best checkpoint, on one split."""

    split: Literal["train", "validation", "test"] = "test"
    """Split to evaluate."""
    attack: str = ""
    """Also evaluate under this adversarial attack, as in `list attacks`: fgsm, pgd or
    pgd:steps=20."""
    eps: float = 8 / 255
    """Maximum change of a pixel by the attack, as a fraction of the range from black to white."""
    output: Path | None = None
    """JSON file to write; if omitted, RUN/evaluation-SPLIT.json."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictFlags(_RunFlags):
    """Predicts all tasks for image files with a trained run, at its best checkpoint."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """PNG, JPEG or npy files of any size."""
    output: Path | None = None
    """JSON file to write; if omitted, RUN/predictions.json."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFlags(_RunFlags):
    """Writes a trained run, at its best checkpoint, in a format that can be used without mtljax."""

    to: Literal["stablehlo", "onnx", "safetensors"]
    """Format; `list exports` describes them."""
    output: Path | None = None
    """File to write; if omitted, RUN/NAME.FORMAT. If encrypted, .age is appended."""
    encrypt: bool = False
    """Encrypt in the age format; exports of encrypted runs are always encrypted. The key comes from
    MTLJAX_KEY_FILE, MTLJAX_KEY or MTLJAX_PASSPHRASE."""


def evaluate_verb(arguments: list[str]) -> int:
    """Runs `evaluate` and returns the exit status."""
    flags = parse(EvaluateFlags, arguments, "evaluate")
    from mtljax import compilation
    from mtljax.build import make_attack
    from mtljax.evaluation.predict import evaluate_run
    from mtljax.evaluation.tables import metrics_table
    from mtljax.runs.load import load_run
    from mtljax.utils.files import check_output, write_json
    from mtljax.utils.terminal import console

    compilation.use_compile_cache()
    trained = load_run(flags.run, verify=flags.verify)
    suffix = f"-{flags.attack.partition(':')[0]}" if flags.attack else ""
    output = flags.output or flags.run / f"evaluation-{flags.split}{suffix}.json"
    check_output(output)
    attack = make_attack(flags.attack or None, trained.low, trained.high, eps=flags.eps)
    metrics = evaluate_run(trained, flags.split, attack)
    title = f"{flags.run} at step {trained.step}, {flags.split} split"
    console.print(metrics_table(title, **metrics))
    content: dict[str, Any] = {"step": trained.step, "split": flags.split, **metrics}
    if attack is not None:
        content["attack"] = {"attack": flags.attack, "eps": flags.eps}
    write_json(output, content)
    print(f"written to {output}")
    return 0


def predict_verb(arguments: list[str]) -> int:
    """Runs `predict` and returns the exit status."""
    flags = parse(PredictFlags, arguments, "predict")
    if not flags.images:
        raise ValueError("missing images: predict --run DIR IMAGE ... (PNG, JPEG or npy files)")
    from mtljax import compilation
    from mtljax.cli.tables import predictions_table
    from mtljax.evaluation.predict import predict_files
    from mtljax.runs.load import load_run
    from mtljax.utils.files import check_output
    from mtljax.utils.terminal import console

    compilation.use_compile_cache()
    trained = load_run(flags.run, verify=flags.verify)
    output = flags.output or flags.run / "predictions.json"
    check_output(output)
    console.print(predictions_table(predict_files(trained, flags.images, output)))
    print(f"written to {output}")
    return 0


def export_verb(arguments: list[str]) -> int:
    """Runs `export` and returns the exit status."""
    flags = parse(ExportFlags, arguments, "export")
    from mtljax.cli.tables import export_table
    from mtljax.exporters.export import export
    from mtljax.utils.terminal import console

    exported = export(flags.run, flags.to, flags.output, encrypt=flags.encrypt, verify=flags.verify)
    console.print(export_table(exported.description))
    for file in exported.files:
        print(f"written to {file}")
    return 0
