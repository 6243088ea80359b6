"""Screening of an experiment's data: all checks, combined in one list of findings."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from mtljax.build import keeps_on_device, load_resident, open_source
from mtljax.config import Experiment
from mtljax.data.base import Arrays, Example, Source, Split, map_splits
from mtljax.screening.appearance import find_odd_images
from mtljax.screening.droplist import write_drop
from mtljax.screening.findings import ERRORS, NOTES, Finding, Screening, by_kind
from mtljax.screening.images import find_duplicates, summarize_images
from mtljax.screening.labels import find_label_issues
from mtljax.utils.optional import require_installed

MANY = 0.05
"""Fraction of the examples with findings above which screening warns."""


def screen(
    experiment: Experiment,
    source: Source,
    *,
    folds: int = 4,
    progress: Callable[[str], None] = lambda message: None,
) -> Screening:
    """Runs all checks.

    Args:
      experiment: Its network checks the labels.
      folds: Number of networks trained to check the labels; 0: labels are not checked.
      progress: Function that prints a message.

    Raises:
      ValueError: One fold, too few valid examples to train on, or a missing package.
    """
    for package in ("cleanlab", "cleanvision"):
        require_installed(package, "protect", "screening")
    if folds < 0 or folds == 1:
        raise ValueError(f"--folds must be 0 (skip labels) or >= 2, not {folds}")
    summaries, findings = summarize_images(source, experiment.tasks)
    examples = len(summaries) + len(findings)
    progress(f"read {examples} examples")
    findings += find_duplicates(summaries, source)
    places = [summary.place for summary in summaries]
    copies = {f.place for f in findings}  # a network that has learned a copy predicts its label
    odd, remarks = find_odd_images(source, places)
    findings += odd
    if folds:
        clean = [place for place in places if place not in copies]
        doubted, not_judged = find_label_issues(experiment, source, clean, folds, progress)
        findings += doubted
        remarks += not_judged
    return Screening(findings, remarks + _warnings(findings, examples))


def _warnings(findings: Sequence[Finding], examples: int) -> list[str]:
    """Returns warnings if many examples have findings."""
    places = {finding.place for finding in findings if finding.kind not in NOTES}
    if len(places) <= MANY * examples:
        return []
    sentences = [
        f"{len(places)} of {examples} examples have findings, more than {100 * MANY:.0f} %: look "
        "at the report before you leave them out of training"
    ]
    leaks = sum(finding.kind == "leak" for finding in findings)
    if leaks > MANY * examples:
        sentences.append(
            f"{leaks} images occur in two splits: split by a column that is the same for all "
            "images of an object or a video, instead of leaving the copies out"
        )
    return sentences


def load_screened(experiment: Experiment) -> Source:
    """Loads an experiment's data like `mtljax.build.load_source`, but refuses data with errors.

    Splits that training keeps on the device are read once, for screening and training together.

    Raises:
      ValueError: The data has errors, or cannot be opened.
    """

    def cached(split: Split) -> Split:
        try:
            keep = not isinstance(split, Arrays) and keeps_on_device(experiment, split)
        except Exception:  # sources may raise any exception; screening reports the example
            keep = False
        return _Cached(split) if keep else split

    source = map_splits(open_source(experiment, caches=True), cached)
    summaries, findings = summarize_images(source, experiment.tasks)
    findings += find_duplicates(summaries, source)
    errors = [finding for finding in findings if finding.kind in ERRORS]
    if errors:
        counts = ", ".join(f"{len(of_kind)} {kind}" for kind, of_kind in by_kind(errors))
        first = errors[0]
        raise ValueError(
            f"the data has errors ({counts}), first {first.place} {first.kind}: {first.detail}; "
            "`screen --drop FILE` lists them, `--data.drop FILE` leaves them out"
        )
    return load_resident(experiment, source)


class _Cached:
    """Split that keeps the examples that were read."""

    def __init__(self, split: Split):
        self._split, self._read = split, functools.cache(split.__getitem__)

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Example:
        return self._read(index)


def screen_to_folder(
    experiment: Experiment,
    output: Path,
    drop: Path | None,
    folds: int,
    progress: Callable[[str], None],
) -> Screening:
    """Screens an experiment's data and writes findings.json, report.html and the drop list.

    `folds` and `progress` are those of `screen`.

    Raises:
      ValueError: The data cannot be opened, or the files cannot be written.
    """
    from mtljax.screening.page import write_page  # jinja2 is not needed by --screen strict
    from mtljax.utils.files import check_output, write_json

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot write to {output}: {error.strerror}; choose another --output"
        ) from None
    for path in (output / "findings.json", *([drop] if drop else [])):
        check_output(path)
    data = dataclasses.replace(experiment.data, fold=None)  # the drop list has the source's splits
    source = open_source(dataclasses.replace(experiment, data=data))
    screening = screen(experiment, source, folds=folds, progress=progress)
    findings = screening.findings
    write_json(
        output / "findings.json",
        [{**f._asdict(), "place": str(f.place), "like": f.like and str(f.like)} for f in findings],
    )
    write_page(output / "report.html", experiment, source, screening)
    if drop is not None:
        progress(f"{write_drop(drop, findings, source)} to leave out in {drop}")
    return screening
