"""Balancers and other parts that an experiment file adds: recorded, and loaded if trusted."""

import json
import os

import pytest

from mtljax.balancing import BALANCERS
from mtljax.config import find_experiment, read_config, task_classes
from mtljax.config.files import run_config
from mtljax.models import TRUNKS
from mtljax.runs.folder import RunFolder

FILE = """
import dataclasses
import pathlib

import mtljax
from mtljax.balancing import BALANCERS, Balancer, Needs
from mtljax.models import TRUNKS, mlp

pathlib.Path("executed").touch()


def root(power: float = 0.5) -> Balancer:
    init = lambda num_tasks, shared: ()
    return Balancer(init, lambda signals, state, key: (signals.losses**power, state), Needs.LOSSES)


def small():
    return mlp(widths=(4,))


BALANCERS["root"] = root
TRUNKS["small"] = small

experiment = dataclasses.replace(
    mtljax.find_experiment("digits"), trunk="small", balancer="ew+root:power=0.25"
)
"""


@pytest.fixture(autouse=True)
def forget(monkeypatch, tmp_path):
    """Forgets the parts and files of earlier code, as a new process does."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("MTLJAX_TRUSTED_CODE", raising=False)
    monkeypatch.chdir(tmp_path)

    def forget():
        monkeypatch.setattr(task_classes, "_executed", {})
        BALANCERS.pop("root", None)
        TRUNKS.pop("small", None)
        if os.path.exists("executed"):
            os.unlink("executed")

    forget()
    yield forget
    forget()


@pytest.fixture
def recorded(forget, tmp_path):
    """config.json of a run of a file with a balancer and a trunk, read by another process."""
    (tmp_path / "parts.py").write_text(FILE)
    with RunFolder(tmp_path / "run", find_experiment("parts.py")):
        pass
    forget()
    return tmp_path / "run" / "config.json"


def test_the_parts_of_an_experiment_file_are_found_when_a_run_is_read(recorded):
    file = recorded.parents[1] / "parts.py"
    assert set(json.loads(recorded.read_text())["code"]) == {
        f"file:{file}#{name}" for name in ("root", "small")
    }
    experiment = read_config(recorded)
    assert (experiment.trunk, experiment.balancer) == ("small", "ew+root:power=0.25")


def test_a_file_with_parts_that_this_user_never_trained_with_is_not_executed(recorded, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(recorded.parent / "stranger"))
    with pytest.raises(ValueError, match=r"'root' is defined in .*; if you trust it, set MTLJAX_"):
        read_config(recorded)
    assert not os.path.exists("executed")
    monkeypatch.setenv("MTLJAX_TRUSTED_CODE", "parts.py")
    assert read_config(recorded).balancer == "ew+root:power=0.25"


def test_a_changed_file_with_parts_is_refused_if_the_run_is_verified(recorded, capsys):
    (recorded.parents[1] / "parts.py").write_text(FILE + "\n")
    with pytest.raises(ValueError, match="has changed since this run was trained with it"):
        read_config(recorded, exact=True)
    assert not os.path.exists("executed")
    read_config(recorded)
    assert "has changed" in "".join(capsys.readouterr().out.split("\n"))


def test_parts_of_an_imported_module_are_found_too(forget, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_roots.py").write_text(FILE.partition("BALANCERS[")[0])
    (tmp_path / "imports.py").write_text(
        "import dataclasses, functools, mtljax, own_roots\n"
        "mtljax.balancing.BALANCERS['root'] = functools.partial(own_roots.root, power=2.0)\n"
        "experiment = dataclasses.replace(mtljax.find_experiment('digits'), balancer='root')\n"
    )
    with RunFolder(tmp_path / "run", find_experiment("imports.py")):
        pass
    forget()
    config = tmp_path / "run" / "config.json"
    assert list(json.loads(config.read_text())["code"]) == [f"file:{tmp_path / 'imports.py'}#root"]
    assert read_config(config).balancer == "root"


def test_an_experiment_of_parts_of_the_package_needs_no_file():
    assert "code" not in run_config(find_experiment("digits"))
