"""docs/my_data.md, followed from top to bottom by somebody with an empty folder."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from support.cli import run

from mtljax.config import find_experiment
from mtljax.main import main
from mtljax.tasks import TASKS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "my_data.md"
TEXT = PAGE.read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.M | re.S)


def commands():
    for block in blocks("bash"):
        for line in block.splitlines():
            python, *arguments = shlex.split(line)
            assert (python, *arguments[:2]) == ("python", "-m", "mtljax.main")
            yield arguments[2:]


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The folder in which everything on the page was done."""
    where = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        patch.delenv("MTLJAX_DATA", raising=False)
        (make,) = blocks("python")
        exec(make, {})
        for arguments in commands():
            # The page's own command, but for the number of steps.
            few = ["--steps", "3", "--eval-every", "3", "--devices", "1"]
            assert main(arguments + few * (arguments[0] == "--experiment")) == 0
    return where


@pytest.mark.slow
def test_the_network_learns_the_three_tasks(tmp_path):
    """The page as it stands, by a newcomer's own commands."""
    (make,) = blocks("python")
    exec(make.replace('Path("my_data")', f"Path({str(tmp_path / 'my_data')!r})"), {})
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for arguments in commands():
        command = [sys.executable, "-m", "mtljax.main", *arguments]
        done = run(command, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
    test = json.loads((tmp_path / "runs/my_data/result.json").read_text())["test"]
    assert test["shape"]["accuracy"] > 0.7  # a third by chance
    assert test["size"]["mae"] < 2.0  # 2.75 for the mean of 5 to 15
    assert test["mask"]["miou"] > 0.8


@pytest.mark.full
def test_the_gaps_are_reported(followed):
    found = json.loads((followed / "runs/data-my_data/statistics.json").read_text())
    missing = {
        task: sum(found[part][task]["missing"] for part in found)
        for task in ("shape", "size", "mask")
    }
    assert sum(missing.values()) == 30
    assert all(missing.values())
    assert sum(found[part]["examples"] for part in found) == 300
    assert (followed / "runs/data-my_data/samples.png").stat().st_size > 10_000


@pytest.mark.full
def test_a_prediction_has_all_tasks(followed):
    (found,) = json.loads((followed / "runs/my_data/predictions.json").read_text())
    assert {"shape", "size", "mask"} <= set(found)


@pytest.mark.full
def test_the_table_shown_is_the_one_that_is_made(followed):
    lines = (followed / "my_data/labels.csv").read_text().splitlines()
    shown = re.findall(r"^    ((?:image,|\d{3}\.png,).*)$", TEXT, re.M)
    assert shown[0] == lines[0]
    assert all(line in lines for line in shown)


@pytest.mark.full
def test_the_mistake_is_said_as_the_page_shows_it(followed, monkeypatch, capsys):
    monkeypatch.chdir(followed)
    table = Path("my_data/labels.csv")
    text = table.read_text()
    row = text.splitlines()[6].split(",")
    table.write_text(text.replace(",".join(row), ",".join([row[0], "sqare", *row[2:]])))
    try:
        assert main(["--experiment", "my_data"]) == 2
    finally:
        table.write_text(text)
    shown = re.search(r"^    (mtljax: .*?) \.\.\.$", TEXT, re.M)[1]
    assert capsys.readouterr().err.startswith(shown)


def test_every_kind_of_task_is_in_the_table():
    named = set(re.findall(r"`([A-Z]\w+)`", TEXT))
    assert {cls.__name__ for cls in TASKS.values()} <= named


def test_the_experiment_is_a_template():
    experiment = find_experiment("my_data")
    assert experiment.data.source.startswith("folder:my_data")
    assert len({type(task) for task in experiment.tasks}) == 3
