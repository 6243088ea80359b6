"""The documentation site, built once."""

import os
import sys
from pathlib import Path

import pytest
from support.cli import run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def site_folder(tmp_path_factory):
    """Folder of the site without the outputs of notebooks."""
    pytest.importorskip("myst_nb")
    folder = tmp_path_factory.mktemp("site")
    settings = {"MTLJAX_DOCS_NOTEBOOKS": "off", "PYTHONPATH": ":".join([str(ROOT), *sys.path])}
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(ROOT / "docs")]
    done = run([*command, str(folder)], cwd=folder, env={**os.environ, **settings})
    assert done.returncode == 0, done.stderr
    return folder
