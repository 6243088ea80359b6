"""Makes the API pages, of the docstrings of every module, in the folder `site`.

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
WHERE = re.compile(
    r"\b(?:jaxtyping|typing|collections\.abc|(?:jax\.)?jaxlib\._jax|flax\.linen\.module)\."
)
"""What annotations say of where a type is from: `Float[Array, "B H W C"]` is quicker to read."""


def make(folder: Path) -> None:
    """Writes a page for each of `MODULES`, and `index.html`."""
    whole = inspect.formatannotation
    short = lambda annotation, *rest, **more: WHERE.sub("", whole(annotation, *rest, **more))
    inspect.formatannotation = pdoc.doc.formatannotation = short
    list_submodules()
    pdoc.render.configure(docformat="google", footer_text=f"mtljax {mtljax.__version__}")
    pdoc.pdoc("mtljax", output_directory=folder)


def list_submodules() -> None:
    """Lets every package name its modules: pdoc leaves out what is not in its `__all__`."""
    for name in MODULES:
        parent, _, own = name.rpartition(".")
        package = importlib.import_module(parent or name)
        if parent and own not in getattr(package, "__all__", [own]):
            package.__all__ = [*package.__all__, own]


if __name__ == "__main__":
    make(Path("site"))
    print("open site/index.html")
