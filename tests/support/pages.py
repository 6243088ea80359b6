"""The pages on a user's own data: their scripts, experiments, commands and messages.

Of a page's code blocks, `python` is a script, or an experiment to save as NAME.py, `bash` has
commands, and `text` the output of the commands before it or, below "Typical mistakes", messages.
"""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from mtljax.main import main
from mtljax.utils.terminal import console

DOCS = Path(__file__).parents[2] / "docs"
NAMES = ("my_data", "class_folders", "coco", "masks", "several_data_sets")
MISTAKES = "## Typical mistakes"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
FEW = ("--steps", "3", "--eval-every", "3", "--devices", "1")
"""What makes a run short."""


def read(name):
    return (DOCS / f"{name}.md").read_text()


def steps(name):
    """The blocks of a page before the mistakes, as (language, content)."""
    return BLOCK.findall(read(name).partition(MISTAKES)[0])


def messages(name):
    """The messages below the heading of the mistakes."""
    found = BLOCK.findall(read(name).partition(MISTAKES)[2])
    return [content for language, content in found if language == "text"]


def commands(content):
    """The arguments of each command of a bash block."""
    for line in content.replace("\\\n", " ").splitlines():
        python, *arguments = shlex.split(line)
        assert (python, *arguments[:2]) == ("python", "-m", "mtljax.main")
        yield arguments[2:]


def is_experiment(content):
    return "\nexperiment = Experiment(" in content


def write_experiments(name, folder):
    """Saves each experiment of a page under the file name that the page gives it."""
    for language, content in steps(name):
        if language == "python" and is_experiment(content):
            file = re.search(r'^    name="(\w+)",$', content, re.M)[1] + ".py"
            assert f"`{file}`" in read(name)
            (folder / file).write_text(content)


def prepare(name, folder):
    """Does in an empty folder what a page says before its commands."""
    write_experiments(name, folder)
    with contextlib.chdir(folder):
        for language, content in steps(name):
            if language == "python" and not is_experiment(content):
                exec(content, {})


def call(arguments, folder):
    """The exit status of a command and what it prints, at 80 columns."""
    text = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(text):
        patch.chdir(folder)
        patch.delenv("MTLJAX_DATA", raising=False)
        patch.setattr(console, "width", 80)
        with contextlib.redirect_stderr(text):
            status = main(list(arguments))
    return status, text.getvalue()


def trains(arguments):
    return arguments[0] == "--experiment"


def shows(printed, shown):
    """True if a text is in what is printed, but for white space and for "..."."""
    printed, place = " ".join(printed.split()), 0
    for part in shown.split("..."):
        part = " ".join(part.split())
        place = printed.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return True
