"""`evaluate`, `predict` and `export`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from mtljax.cli.flags import parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateFlags:
    """Metrics of a trained run, at its best checkpoint, on one of its splits."""

    run: Path
    """The run folder."""
    split: str = "test"
    """train, validation or test."""
    attack: str = ""
    """Also under an attack, as `list attacks` shows: fgsm, pgd or pgd:steps=20."""
    eps: float = 8 / 255
    """Of the attack: largest change of a pixel, as a share of the way from black to white."""
    verify: Path | None = None
    """Public key (PEM): load the run only if its owner signed it."""
    output: Path | None = None
    """Where to write the numbers as JSON (default: RUN/evaluation-SPLIT.json)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictFlags:
    """What a trained run, at its best checkpoint, says of image files."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """PNG, JPEG or npy files, of any size."""
    run: Path
    """The run folder."""
    verify: Path | None = None
    """Public key (PEM): load the run only if its owner signed it."""
    output: Path | None = None
    """Where to write the predictions as JSON (default: RUN/predictions.json)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFlags:
    """Writes a trained run, at its best checkpoint, in a format that is used without mtljax."""

    run: Path
    """The run folder."""
    to: str
    """The format, as `list exports` shows: stablehlo, onnx or safetensors."""
    output: Path | None = None
    """The file (default: RUN/NAME.FORMAT); what is encrypted has .age behind it."""
    encrypt: bool = False
    """Encrypt, in the age format, though the run is not; what comes of an encrypted run always is.
    The key comes from MTLJAX_KEY_FILE, MTLJAX_KEY or MTLJAX_PASSPHRASE."""
    verify: Path | None = None
    """Public key (PEM): load the run only if its owner signed it."""


def evaluate_verb(arguments: list[str]) -> int:
    """Metrics of a trained run on one of its splits."""
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
    under = f"-{flags.attack.partition(':')[0]}" if flags.attack else ""
    output = flags.output or flags.run / f"evaluation-{flags.split}{under}.json"
    check_output(output)
    attack = make_attack(flags.attack or None, trained.low, trained.high, eps=flags.eps)
    found, step = evaluate_run(trained, flags.split, attack), trained.step
    console.print(metrics_table(f"{flags.run} at step {step}, {flags.split} split", **found))
    told = {"step": step, "split": flags.split, **found}
    if attack is not None:
        told["attack"] = {"attack": flags.attack, "eps": flags.eps}
    write_json(output, told)
    print(f"written to {output}")
    return 0


def predict_verb(arguments: list[str]) -> int:
    """What a trained run says of image files."""
    flags = parse(PredictFlags, arguments, "predict")
    if not flags.images:
        raise ValueError("which images? name PNG, JPEG or npy files after predict --run DIR")
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
    """Writes a trained run in a format that is used without mtljax."""
    flags = parse(ExportFlags, arguments, "export")
    from mtljax.cli.tables import export_table
    from mtljax.exporters.export import export_run
    from mtljax.utils.terminal import console

    exported = export_run(
        flags.run, flags.to, flags.output, encrypt=flags.encrypt, verify=flags.verify
    )
    console.print(export_table(exported.description))
    for file in exported.files:
        print(f"written to {file}")
    return 0
