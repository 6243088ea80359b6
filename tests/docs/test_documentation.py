"""What the README and the docstrings show is run, and says what is true."""

import doctest
import importlib
import json
import re
import runpy
from pathlib import Path

import pytest
from support.public_names import MODULES

from mtljax.balancing import BALANCERS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
LIBRARY = (ROOT / "docs" / "library.md").read_text()


def blocks(language, page=README):
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.M | re.S)


def test_the_first_two_bash_blocks_are_the_main_job_and_the_tests():
    main_job, tests = blocks("bash")[:2]
    assert "mtljax.main --experiment digits" in main_job
    assert "pytest" in tests
    assert all("venv" in block for block in (main_job, tests))


@pytest.mark.full
def test_the_python_of_the_readme_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    (block,) = blocks("python")
    exec(block, namespace)
    assert namespace["result"].test["digit"]["accuracy"] > 0.5
    assert (tmp_path / "runs" / "cagrad" / "report.html").is_file()


def test_the_readme_is_one_screen_without_its_first_two_commands_and_the_closed_table():
    shown, closed, _ = README.partition("<details>")
    assert closed
    assert README.endswith("</details>\n")
    lines = [line for line in shown.splitlines() if line.strip()]
    assert len(lines) - 2 * 4 <= 45


def test_the_python_of_the_library_page_runs_in_order_and_trains():
    namespace = {}
    library, alone, devices = blocks("python", LIBRARY)
    exec(library, namespace)
    assert float(namespace["logs"]["loss"]["digit"]) < 2.3  # log 10: it has learned something
    exec(alone, namespace)
    assert namespace["direction"].shape == (2,)
    exec(devices, namespace)


def test_the_library_example_has_at_most_17_lines():
    lines = [line for line in blocks("python", LIBRARY)[0].splitlines() if line.strip()]
    assert len(lines) <= 17
    assert "class Net(nn.Module)" in lines[1]


@pytest.mark.parametrize("link", re.findall(r"(?:\]\(|src=\")([^)#:\"]+)", README))
def test_what_the_readme_links_to_is_there(link):
    assert (ROOT / link).is_file()


def test_the_table_of_balancers_is_what_the_code_says():
    made = runpy.run_path(str(ROOT / "benchmarks" / "table.py"))
    assert made["START"] in README
    assert made["with_table"](README) == README, "run python benchmarks/table.py"


def test_the_cost_of_every_balancer_was_measured():
    costs = ROOT / "mtljax" / "balancing" / "costs.json"
    assert json.loads(costs.read_text()).keys() == BALANCERS.keys()


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_do_what_they_say(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
