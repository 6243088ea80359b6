"""Imports of optional packages."""

import importlib
import importlib.util
from typing import Any


def require(module: str, extra: str, purpose: str) -> Any:
    """Imports and returns an optional module; raises ValueError if it is not installed.

    Args:
      module: Import name, for example `pyrage`.
      extra: Extra of mtljax that installs it, for example `protect`.
      purpose: Feature that needs it; subject of the message.
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
