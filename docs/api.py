"""Build the API pages from the docstrings of all modules, in the folder `site`.

python docs/api.py
"""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pdoc

import mtljax

MODULES = ["mtljax", *(m.name for m in pkgutil.walk_packages(mtljax.__path__, "mtljax."))]
PREFIX = re.compile(
    r"\b(?:jaxtyping|typing|collections\.abc|(?:jax\.)?jaxlib\._jax|flax\.linen\.module)\."
)
"""Module prefixes in annotations, which are removed: `Float[Array, "B H W C"]` reads better."""


def build(folder: Path) -> None:
    """Writes a page per module, and `index.html`."""
    format_full = inspect.formatannotation
    short = lambda annotation, *rest, **more: PREFIX.sub("", format_full(annotation, *rest, **more))
    inspect.formatannotation = pdoc.doc.formatannotation = short
    list_submodules()
    pdoc.render.configure(docformat="google", footer_text=f"mtljax {mtljax.__version__}")
    pdoc.pdoc("mtljax", output_directory=folder)


def list_submodules() -> None:
    """Adds submodules to the `__all__` of their package, since pdoc omits others."""
    for name in MODULES:
        parent, _, child = name.rpartition(".")
        package = importlib.import_module(parent or name)
        if parent and child not in getattr(package, "__all__", [child]):
            package.__all__ = [*package.__all__, child]


if __name__ == "__main__":
    build(Path("site"))
    print("open site/index.html")
