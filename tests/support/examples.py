"""Code blocks of the pages, and what runs them.

Pages are README.md, CONTRIBUTING.md and all of docs that the build does not write. Blocks in
`bash`, `python` and so on (`CHECKS`) are examples; `text` is output or a drawing. The build of the
site runs code cells. Other examples are run by the test that `RUN_BY` names for their page or, on
all other pages, from top to bottom by test_examples.py. Of a block below the comment
`<!-- syntax only: REASON -->`, the syntax is checked.
"""

import ast
import json
import re
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
GENERATED = ("methods", "repository", "api", "command_line", "errors", "run_folder")
"""Folders that the build writes."""
FENCE = re.compile(
    r"^( *)(?:<!-- syntax only: (?P<reason>\S.*) -->\n+ *)?```(?P<language>[^`\n]*)\n"
    r"(?P<code>.*?)^ *```$",
    re.M | re.S,
)
DIRECTIVES = ("{code-cell} python", "{layers}", "{toctree}")
RUN_BY = {
    "CONTRIBUTING.md": ".ci/run",
    "README.md": "tests/docs/test_commands_shown.py",
    "docs/cluster.md": "tests/docs/test_cluster_page.py",
    "docs/library.md": "tests/docs/test_documentation.py",
    "docs/scaling.md#python": "tests/docs/test_scaling_page.py",
    "docs/tutorials/from_libmtl.md": "tests/docs/test_migration_pages.py",
    "docs/tutorials/from_torchjd.md": "tests/docs/test_migration_pages.py",
} | {
    f"docs/{name}.md": "tests/docs/test_data_pages.py"
    for name in ("my_data", "class_folders", "coco", "masks", "several_data_sets")
}
"""Page, or its blocks in one language -> what runs them, where an empty folder is not enough."""


class Example(NamedTuple):
    """Block of a page."""

    language: str
    code: str
    reason: str
    """Why only its syntax is checked; "" if it is run."""


def check_bash(code: str) -> None:
    """Raises CalledProcessError if the syntax is invalid."""
    subprocess.run(["bash", "-n", "-c", code], check=True, capture_output=True, timeout=60)


CHECKS: dict[str, Callable[[str], object]] = {
    "bash": check_bash,
    "python": ast.parse,
    "yaml": yaml.safe_load,
    "json": json.loads,
}
"""Language -> function that raises an error if the syntax is invalid."""


def pages() -> list[Path]:
    """Returns all pages that are written by hand."""
    found = [page for page in sorted((ROOT / "docs").rglob("*.md")) if not is_generated(page)]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *found]


def is_generated(page: Path) -> bool:
    """True for a page in a folder that the build writes."""
    return bool({"_ext", *GENERATED} & set(page.relative_to(ROOT).parts))


def name_of(page: Path) -> str:
    """Returns the path of a page in the repository."""
    return str(page.relative_to(ROOT))


def examples(page: Path) -> list[Example]:
    """Returns all blocks of a page, in their order."""
    return [
        Example(
            block["language"].strip(),
            textwrap.dedent(block["code"]),
            block["reason"] or "",
        )
        for block in FENCE.finditer(page.read_text())
    ]


def to_run(page: Path) -> list[Example]:
    """Returns the examples of a page that neither the build nor a test of their own runs."""
    name = name_of(page)
    others = {x for x in CHECKS if {name, f"{name}#{x}"} & RUN_BY.keys()}
    languages = CHECKS.keys() - others
    return [x for x in examples(page) if x.language in languages and not x.reason]


def outside(page: Path) -> str:
    """Returns the text of a page without its blocks."""
    return FENCE.sub("", page.read_text())
