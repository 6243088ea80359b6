"""Flags of everyday training options: forms, hints and help."""

import dataclasses

import pytest

from mtljax.cli.verbs.experiment import read_experiment
from mtljax.cli.verbs.train import TrainFlags
from mtljax.main import main

WITH_SCALES = (
    "import dataclasses\n"
    "from mtljax.config import find_experiment\n"
    "experiment = dataclasses.replace(\n"
    "    find_experiment('digits'), learning_rate_scales={'trunk': 0.5, 'task_digit': 2.0}\n"
    ")\n"
)
SCALES = "--learning-rate-scales"


def parsed(*flags, experiment="digits"):
    return read_experiment(["--experiment", experiment, *flags], "train", "Trains", TrainFlags)[1]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((SCALES, "trunk", "0.1", "task_digit", "10"), {"trunk": 0.1, "task_digit": 10.0}),
        ((f"{SCALES}.trunk", "0.1"), {"trunk": 0.1}),
        ((f"{SCALES}.trunk=0.1", f"{SCALES}.bias", "2"), {"trunk": 0.1, "bias": 2.0}),
        (("--learning_rate_scales.task_digit", "3"), {"task_digit": 3.0}),
        ((f"{SCALES}.trunk", "1", SCALES, "bias", "2"), {"trunk": 1.0, "bias": 2.0}),
    ],
)
def test_pairs_have_two_forms(flags, expected):
    assert parsed(*flags).learning_rate_scales == expected
    assert parsed("--data.labels.digit", "d", *flags).data.labels == {"digit": "d"}


def test_a_single_pair_changes_or_adds_to_the_experiments_and_all_pairs_replace_them(tmp_path):
    file = tmp_path / "scaled.py"
    file.write_text(WITH_SCALES)
    scales = lambda *flags: parsed(*flags, experiment=str(file)).learning_rate_scales
    assert scales() == {"trunk": 0.5, "task_digit": 2.0}
    assert scales(f"{SCALES}.trunk", "0.1") == {"trunk": 0.1, "task_digit": 2.0}
    assert scales(f"{SCALES}.bias", "3") == {"trunk": 0.5, "task_digit": 2.0, "bias": 3.0}
    assert scales(SCALES, "bias", "3") == {"bias": 3.0}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--class-weights", "balanced"), "use --tasks.0.class-weights balanced"),
        (("--focal-loss", "2"), "use --tasks.0.focal 2"),
        (("--early-stopping", "3"), "unknown flag '--early-stopping'; use --patience N"),
        (("--head-learning-rate", "1"), "use --learning-rate-scales task_NAME FACTOR"),
        (("--trunk-learning-rate=1",), "use --learning-rate-scales trunk FACTOR"),
        (("--epochs", "3"), "unknown flag '--epochs'; use --steps N"),
        (("--patiense", "3"), "unknown flag '--patiense'; did you mean '--patience'?"),
        ((f"{SCALES}.trunk",), "--learning-rate-scales.trunk needs a value"),
        ((f"{SCALES}.trunk", "x"), "--learning-rate-scales must be pairs"),
        (("--patience", "0"), "patience must be >= 1 evaluation or none, not 0"),
    ],
)
def test_mistakes_name_the_flag(flags, message, capsys):
    assert main(["--experiment", "digits", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((f"{SCALES}.task_digits", "2"), "learning_rate_scales: unknown module 'task_digits' "),
        ((f"{SCALES}.trunk", "2", "--freeze", "trunk"), "unknown module 'trunk' among those that"),
        (("--select", "digit/acuracy"), "did you mean 'digit/accuracy'?"),
        (("--schedule", "plateua"), "did you mean 'plateau'?"),
    ],
)
def test_unknown_names_are_errors_before_anything_is_written(flags, message, tmp_path, capsys):
    workdir = tmp_path / "run"
    small = ("--trunk", "mlp:widths=(4,)", "--data.augment", "none")
    assert main(["--experiment", "digits", *small, *flags, "--workdir", str(workdir)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not workdir.exists()


def test_help_and_list_describe_the_options(capsys):
    with pytest.raises(SystemExit):
        main(["--experiment", "digits", "--help"])
    text = capsys.readouterr().out
    assert all(flag in text for flag in ("--patience", SCALES, "--select", "plateau"))
    assert main(["list", "schedules"]) == 0
    text = capsys.readouterr().out
    assert "poly" in text
    assert "plateau" in text


def test_the_options_are_a_part_of_the_experiment():
    options = {"patience": 3, "learning_rate_scales": {"trunk": 0.1}, "schedule": "poly:power=2"}
    words = ["--patience", "3", f"{SCALES}.trunk", "0.1", "--schedule", "poly:power=2"]
    assert parsed(*words) == dataclasses.replace(parsed(), **options)
