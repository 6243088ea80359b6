"""Every example on a page is run, or says why only its syntax is checked; see support/examples."""

import importlib.util
import os
import re
import shutil
import sys
import tomllib

import pytest
from support import examples, pages, site_pages
from support.cli import run

from mtljax.cli.verbs import VERBS

ROOT = examples.ROOT
PAGES = examples.pages()
PROGRAM = "python -m mtljax.main"
COMMAND = re.compile(r"^ {4,}(?:\w+=\S+ )*(?:python3?|pip|age|openssl|bash|\S*bin/python) \S", re.M)


@pytest.mark.parametrize("page", PAGES, ids=examples.name_of)
def test_a_block_is_an_example_with_valid_syntax_or_output(page):
    for example in examples.examples(page):
        known = example.language in {"text", *examples.CHECKS, *examples.DIRECTIVES}
        assert known, example.language
        examples.CHECKS.get(example.language, str)(example.code)


@pytest.mark.parametrize("page", PAGES, ids=examples.name_of)
def test_no_command_is_outside_of_a_block(page):
    outside = examples.outside(page)
    assert "```" not in outside
    assert not COMMAND.findall(outside)


@pytest.mark.parametrize("name", examples.RUN_BY)
def test_what_runs_a_page_exists(name):
    assert (ROOT / name.partition("#")[0]).is_file()
    assert (ROOT / examples.RUN_BY[name]).is_file()


def test_the_packages_that_are_installed_are_extras():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {
        extra
        for page in PAGES
        for names in re.findall(r"(?:mtljax|\.)\[([a-z0-9,]+)\]", page.read_text())
        for extra in names.split(",")
    }
    assert found <= extras["optional-dependencies"].keys()


BENCHMARK = re.compile(r"^(?:python|bash) (benchmarks/\w+\.(?:py|sh))\b(.*)$", re.M)


@pytest.mark.parametrize("page", PAGES, ids=examples.name_of)
def test_a_benchmark_has_the_flags_that_are_shown(page):
    for file, arguments in BENCHMARK.findall(page.read_text()):
        source = (ROOT / file).with_suffix(".py").read_text()  # a script passes its arguments on
        for flag in re.findall(r"--[\w-]+", arguments):
            assert f'"{flag}"' in source, flag


TRAIN = f"{PROGRAM} --experiment digits --workdir runs/digits"
PICTURES = (
    "import numpy as np; from pathlib import Path; from PIL import Image; "
    "Path('photos').mkdir(); Path('other').mkdir(exist_ok=True); "
    "files = ['photos/1.png', 'photos/2.jpg', 'other/1.jpg', 'single.tif']; "
    "[Image.fromarray(np.full((32, 32, {channels}), 9, np.uint8).squeeze()).save(f) for f in files]"
)
SINGLE = (
    "import dataclasses, mtljax; base = mtljax.find_experiment('digits'); "
    "[mtljax.train(dataclasses.replace(base, tasks=(task,), steps=3), f'runs/{name}', quiet=True)"
    " for name, task in zip('ab', base.tasks)]"
)
BEFORE = {
    "docs/protection.md": [TRAIN],
    "docs/export.md": [
        TRAIN,
        "age-keygen -o key.txt",
        f"MTLJAX_KEY_FILE=key.txt {PROGRAM} --experiment digits --workdir runs/secret --encrypt",
    ],
    "docs/fronts.md": [f'python -c "{PICTURES.format(channels=1)}"', "mv photos/1.png photo.png"],
    "docs/merging.md": [f'python -c "{SINGLE}"'],
    "docs/options.md": [
        f"{PROGRAM} --experiment my_data --workdir runs/my_data",
        "cp -r my_data other",
        f'python -c "{PICTURES.format(channels=3)}"',
    ],
    "docs/start/five_minutes.md": [f'python -c "{PICTURES.format(channels=1)}"'],
    "docs/transfer.md": [TRAIN, f"{PROGRAM} --experiment multi_digits --workdir runs/multi_digits"],
}
BEFORE |= dict.fromkeys(
    ["docs/concepts/transfer.md", "docs/tutorials/transfer_learning.md"], BEFORE["docs/transfer.md"]
)
"""Page -> commands that make what the page presupposes."""
FEW = ("--steps 3", "--eval-every 3", "--log-every 3")
SMALL = {"seeds": 2, "trials": 2, "tune": 2, "rays": 3, "rounds": 1}
"""Flag -> value that makes a command short."""
SMALLER = {"multi_fashion": "multi_digits", "scenes": "multi_digits"}
"""Experiment -> one that takes less time, and whose data is always there."""


def short(line):
    """The command on small data, with few steps, seeds and trials."""
    if PROGRAM not in line or "--experiment" not in line or "--help" in line:
        return line
    verb = line.partition(PROGRAM)[2].split()[0]
    if verb in VERBS and verb not in ("compare", "front", "search", "group"):
        return line
    steps = re.search(r"--steps (\d+)", line)
    line = re.sub(r" --(?:steps|eval-every|log-every) \d+", "", line)
    for flag, value in SMALL.items():
        line = re.sub(rf"--{flag} \d+", f"--{flag} {value}", line)
    for name, smaller in SMALLER.items():
        line = line.replace(f"--experiment {name} ", f"--experiment {smaller} ")
    few = FEW if steps is None else (f"--steps {int(steps[1]) // 100 + 1}", *FEW[1:])
    return " ".join([line, *few])


def commands(example):
    """The commands of an example, short."""
    if example.language == "python":
        return [["python", "-c", example.code]]
    lines = example.code.replace("\\\n", " ").splitlines()
    lines = [re.sub(r"  +#.*", "", x).replace("/600.age", "/3.age") for x in lines]  # last step
    return [["bash", "-c", short(x)] for x in lines if x and not x.startswith(("pip ", "#"))]


@pytest.mark.slow
@pytest.mark.parametrize("page", list(filter(examples.to_run, PAGES)), ids=examples.name_of)
def test_a_page_can_be_followed_from_top_to_bottom(page, tmp_path):
    name = examples.name_of(page)
    blocks = [examples.Example("bash", "\n".join(BEFORE.get(name, [])), ""), *examples.to_run(page)]
    lines = [line for block in blocks for line in commands(block)]
    if any("age" in words[-1].split() for words in lines) and not shutil.which("age"):
        pytest.skip("age is not installed")
    site_pages.write_files(page, tmp_path)
    if name == "docs/options.md":
        pages.prepare("my_data", tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": ":".join([str(ROOT), *sys.path])}
    for words in lines:
        if importlib.util.find_spec("jax2onnx") is None and "onnx" in words[-1]:
            continue
        done = run(words, cwd=tmp_path, env=environment)
        assert done.returncode == 0, f"{words[-1]}: {done.stderr[-2000:]}"
