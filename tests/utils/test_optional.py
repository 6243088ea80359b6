"""Optional packages: the module, or one line that says how to install it."""

import json
import sys

import pytest

from mtljax.utils.optional import require, require_installed


def test_an_installed_module_is_returned():
    assert require("json", "nothing", "reading") is json
    require_installed("json", "nothing", "reading")


@pytest.mark.parametrize("check", [require, require_installed])
def test_a_missing_package_is_named_with_its_extra(check, monkeypatch):
    monkeypatch.setitem(sys.modules, "no_such_package", None)
    with pytest.raises(ValueError, match=r"^x needs no-such-package: pip install 'mtljax\[y\]'$"):
        check("no_such_package", "y", "x")
