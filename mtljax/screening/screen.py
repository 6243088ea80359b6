"""Screening an experiment's data: every check, one list of findings."""

from collections.abc import Callable
from pathlib import Path

from mtljax.build import open_source
from mtljax.config import Experiment
from mtljax.data.base import Source
from mtljax.screening.appearance import appearance
from mtljax.screening.droplist import write_drop
from mtljax.screening.findings import ERRORS, Finding, by_kind
from mtljax.screening.images import doubles, look
from mtljax.screening.labels import improbable, out_of_fold
from mtljax.utils.optional import require_installed


def screen_images(source: Source, experiment: Experiment) -> list[Finding]:
    """What is seen without training: broken examples, doubles and leaks."""
    seen, findings = look(source, experiment.tasks)
    return [*findings, *doubles(seen)]


def screen(
    experiment: Experiment,
    source: Source,
    *,
    folds: int = 4,
    say: Callable[[str], None] = lambda line: None,
) -> list[Finding]:
    """Everything that is suspicious in an experiment's data, each example at most once per kind.

    Args:
      experiment: Whose data, and whose network judges the labels.
      source: The data.
      folds: How many networks are trained to find doubtful labels; 0: none.
      say: Told what is done.

    Raises:
      ValueError: One fold, too few sound examples to train on, or a package is missing.
    """
    _require_packages()
    if folds < 0 or folds == 1:
        raise ValueError(f"--folds must be 0 (labels are not judged) or >= 2, not {folds}")
    seen, findings = look(source, experiment.tasks)
    say(f"read {len(seen) + len(findings)} examples")
    findings += doubles(seen)
    places = [one.place for one in seen]
    findings += appearance(source, places)
    leaked = {f.place for f in findings}  # a copy would be predicted by who has learned it
    sound = [place for place in places if place not in leaked]
    if folds:
        for fold, (held, predictions) in enumerate(
            out_of_fold(experiment, source, sound, folds), 1
        ):
            say(f"judged labels, part {fold} of {folds}")
            for task in experiment.tasks:
                findings += improbable(task, held, predictions)
    return findings


def _require_packages() -> None:
    for package in ("cleanlab", "cleanvision"):
        require_installed(package, "protect", "screening")


def refuse_errors(source: Source, experiment: Experiment) -> None:
    """Raises ValueError where data has an error, as `--screen strict` wants."""
    wrong = [f for f in screen_images(source, experiment) if f.kind in ERRORS]
    if wrong:
        told = ", ".join(f"{len(found)} {kind}" for kind, found in by_kind(wrong))
        first = wrong[0]
        raise ValueError(
            f"the data has errors ({told}), the first: {first.place} {first.kind}: {first.detail}; "
            "`screen --drop FILE` lists them and `--data.drop FILE` leaves them out"
        )


def screen_to_folder(
    experiment: Experiment,
    output: Path,
    drop: Path | None,
    folds: int,
    say: Callable[[str], None],
) -> list[Finding]:
    """Screens, and writes `findings.json`, the report and the list of what to leave out.

    Raises:
      ValueError: The data cannot be opened, or the files cannot be written.
    """
    from mtljax.screening.page import write_page
    from mtljax.utils.files import check_output, write_json

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot write to {output}: {error.strerror}; choose another --output"
        ) from None
    for path in (output / "findings.json", *([drop] if drop else [])):
        check_output(path)
    source = open_source(experiment)
    findings = screen(experiment, source, folds=folds, say=say)
    write_json(
        output / "findings.json",
        [{**f._asdict(), "place": str(f.place), "like": f.like and str(f.like)} for f in findings],
    )
    write_page(output / "report.html", experiment, source, findings)
    if drop is not None:
        say(f"{write_drop(drop, findings, source)} examples to leave out in {drop}")
    return findings
