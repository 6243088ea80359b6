"""Optional packages: the module, or one line that says how to install it."""

import importlib
import json
import sys
import threading

import pytest

from mtljax.utils.optional import import_ahead, require, require_installed


def test_an_installed_module_is_returned():
    assert require("json", "nothing", "reading") is json
    require_installed("json", "nothing", "reading")


@pytest.mark.parametrize("check", [require, require_installed])
def test_a_missing_package_is_named_with_its_extra(check, monkeypatch):
    monkeypatch.setitem(sys.modules, "no_such_package", None)
    with pytest.raises(ValueError, match=r"^x needs no-such-package: pip install 'mtljax\[y\]'$"):
        check("no_such_package", "y", "x")


def test_a_module_imported_ahead_is_executed_once_in_a_thread(tmp_path, monkeypatch):
    code = "import threading, time\ntime.sleep(0.2)\nthread = threading.current_thread()\n"
    (tmp_path / "slow_module_to_import.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    import_ahead("slow_module_to_import")
    import_ahead("slow_module_to_import")
    module = importlib.import_module("slow_module_to_import")
    assert module.thread is not threading.current_thread()
