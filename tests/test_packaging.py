"""The files that describe the package agree with each other."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import mtljax

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TESTED_EXTRAS = ("test", "protect", "detection", "tensorboard", "search")


def requirements():
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for name in TESTED_EXTRAS for line in extras[name])]
    found = [Requirement(line) for line in lines]
    return [requirement for requirement in found if requirement.name != "mtljax"]


def test_the_lowest_versions_that_ci_tests_are_the_lower_bounds():
    lines = (ROOT / ".ci" / "lowest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    bounds = {
        canonicalize_name(requirement.name): re.search(r">=([\d.]+)", str(requirement.specifier))[1]
        for requirement in requirements()
    }
    assert {name: Version(version) for name, version in bounds.items()} == {
        canonicalize_name(name): Version(version) for name, version in pinned.items()
    }


def test_the_version_is_in_one_place():
    assert PROJECT["dynamic"] == ["version"]
    assert Version(mtljax.__version__).release


def test_the_package_is_typed():
    assert (Path(mtljax.__file__).parent / "py.typed").exists()
