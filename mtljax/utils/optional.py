"""Imports of optional packages, and of packages that take long to import."""

import functools
import importlib
import importlib.util
import threading
from typing import Any


def require(module: str, extra: str, purpose: str) -> Any:
    """Imports and returns an optional module, which `extra` of mtljax installs and `purpose` needs.

    Raises ValueError, a sentence with the subject `purpose`, if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise _missing(module, extra, purpose) from None


def require_installed(module: str, extra: str, purpose: str) -> None:
    """Like `require`, without the cost of the import."""
    if importlib.util.find_spec(module) is None:
        raise _missing(module, extra, purpose)


def _missing(module: str, extra: str, purpose: str) -> ValueError:
    package = module.replace("_", "-")
    return ValueError(f"{purpose} needs {package}: pip install 'mtljax[{extra}]'")


@functools.cache
def import_ahead(module: str) -> None:
    """Starts to import a module in a thread; a later import of it waits until that is done."""
    threading.Thread(target=importlib.import_module, args=[module]).start()
