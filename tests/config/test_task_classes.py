"""Task classes of users: recorded by name, and loaded from trusted files only."""

import dataclasses
import json
import os
import shutil
import sys

import numpy as np
import pytest

import mtljax
from mtljax import transfer
from mtljax.config import (
    Data,
    Experiment,
    find_experiment,
    from_json,
    read_config,
    task_classes,
    to_json,
)
from mtljax.config.files import run_config
from mtljax.data import from_arrays
from mtljax.main import main
from mtljax.runs.folder import RunFolder, check_folder
from mtljax.runs.load import load_run
from mtljax.tasks import Classification, Keypoints, Regression, Segmentation

FILE = '''
from __future__ import annotations

import dataclasses
import pathlib

from mtljax.config import Data, Experiment
from mtljax.tasks import Regression

pathlib.Path("executed").touch()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weighted(Regression):
    """Regression with a factor."""

    factors: tuple[float, ...] = (1.0,)

    def loss(self, output, label, present):
        total, count = super().loss(output, label, present)
        return self.factors[0] * total, count


experiment = Experiment(
    name="weighted",
    tasks=(Weighted(name="a", factors=(2.0,), center=0.0), Regression(name="b", center=0.0)),
    data=Data(source="arrays:data.npz", batch_size=8),
    trunk="mlp:widths=(8,)", steps=4, eval_every=2, telemetry_every=0,
)
'''


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user who has trained nothing, in an empty folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("MTLJAX_TRUSTED_CODE", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(task_classes, "_executed", {})


@pytest.fixture
def weighted(tmp_path):
    """The path of an experiment file with a task class of its own."""
    (tmp_path / "work" / "weighted.py").write_text(FILE)
    return tmp_path / "work" / "weighted.py"


@pytest.fixture
def recorded(weighted, tmp_path, monkeypatch):
    """The config.json of a run of `weighted` that this user has trained, in another process."""
    with RunFolder(tmp_path / "run", find_experiment("weighted.py")):
        pass
    return later(monkeypatch, tmp_path / "run" / "config.json")


def later(monkeypatch, value=None):
    """Forgets the files that this process has executed."""
    monkeypatch.setattr(task_classes, "_executed", {})
    if os.path.exists("executed"):
        os.unlink("executed")
    return value


def test_a_class_of_an_experiment_file_is_recorded_by_its_path(weighted, recorded):
    config = json.loads(recorded.read_text())
    assert [task["task"] for task in config["tasks"]] == [f"file:{weighted}#Weighted", "regression"]
    experiment = read_config(recorded)
    assert experiment.tasks[0].factors == (2.0,)
    assert from_json(to_json(experiment)) == experiment  # in one process, the same class
    assert to_json(find_experiment("weighted.py")) == to_json(read_config(recorded))


def test_a_file_that_this_user_never_trained_with_is_not_executed(weighted, recorded, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(weighted.parent / "stranger"))
    with pytest.raises(ValueError, match=rf"set MTLJAX_TRUSTED_CODE={weighted}$"):
        read_config(recorded)
    assert not os.path.exists("executed")
    monkeypatch.setenv("MTLJAX_TRUSTED_CODE", "weighted.py")
    assert read_config(recorded).tasks[0].factors == (2.0,)


def test_training_says_how_to_load_a_run_without_a_home_folder(weighted, monkeypatch, capsys):
    monkeypatch.setenv("XDG_STATE_HOME", str(weighted))  # a file, so nothing can be written there
    with RunFolder(weighted.parent / "run", find_experiment("weighted.py")):
        pass
    assert f"MTLJAX_TRUSTED_CODE={weighted}" in "".join(capsys.readouterr().out.split("\n"))


def test_a_copy_in_a_downloaded_run_is_not_executed(weighted, recorded):
    config = json.loads(recorded.read_text())
    shutil.copy(weighted, recorded.with_name("evil.py"))
    config["tasks"][0]["task"] = f"file:{recorded.with_name('evil.py')}#Weighted"
    recorded.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="not executed"):
        read_config(recorded)
    assert not os.path.exists("executed")


def test_a_module_of_the_working_folder_needs_trust_too(weighted, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "work")
    (tmp_path / "work" / "strange").mkdir()
    shutil.copy(weighted, tmp_path / "work" / "strange" / "kinds.py")
    config = run_config(find_experiment("weighted.py"))
    config["tasks"][0]["task"] = "strange.kinds:Weighted"
    later(monkeypatch)
    with pytest.raises(ValueError, match="not executed"):
        from_json(config)
    assert not os.path.exists("executed")
    monkeypatch.setenv("MTLJAX_TRUSTED_CODE", "strange/kinds.py")
    try:
        assert type(from_json(config).tasks[0]).__module__ == "strange.kinds"
    finally:
        sys.modules.pop("strange.kinds", None)
        sys.modules.pop("strange", None)


def test_a_missing_file_is_named_and_may_be_given_elsewhere(weighted, recorded, monkeypatch):
    (weighted.parent / "new").mkdir()
    moved = weighted.rename(weighted.parent / "new" / "weighted.py")
    with pytest.raises(ValueError, match=r"weighted.py, which does not exist; put it back"):
        read_config(recorded)
    monkeypatch.setenv("MTLJAX_TRUSTED_CODE", str(moved))
    assert read_config(recorded).tasks[0].factors == (2.0,)


def test_a_moved_file_that_was_trained_with_is_found(weighted, recorded, tmp_path, monkeypatch):
    moved = weighted.rename(weighted.parent / "moved.py")
    with RunFolder(tmp_path / "second", find_experiment("moved.py")):
        pass
    later(monkeypatch)
    assert read_config(recorded).tasks[0].factors == (2.0,)
    moved.write_text(FILE + "# changed\n")
    later(monkeypatch)
    with pytest.raises(ValueError, match="does not exist"):
        read_config(recorded)


def test_a_renamed_file_may_be_given_if_its_content_is_the_same(weighted, recorded, monkeypatch):
    renamed = weighted.rename(weighted.parent / "renamed.py")
    monkeypatch.setenv("MTLJAX_TRUSTED_CODE", str(renamed))
    assert read_config(recorded).tasks[0].factors == (2.0,)
    renamed.write_text(FILE + "# changed\n")
    later(monkeypatch)
    with pytest.raises(ValueError, match=r"a changed file must have the same name"):
        read_config(recorded)


def test_a_run_is_resumed_with_its_moved_file(weighted, recorded, monkeypatch, capsys):
    copy = weighted.parent / "copy.py"
    shutil.copy(weighted, copy)
    with RunFolder(recorded.parent, find_experiment("copy.py")):
        pass
    copy.write_text(FILE + "# changed\n")
    later(monkeypatch)
    with pytest.raises(ValueError, match="holds a run with tasks.0.task=file:"):
        check_folder(recorded.parent, find_experiment("copy.py"))
    weighted.unlink()
    capsys.readouterr()
    check_folder(recorded.parent, find_experiment("copy.py"))
    assert "has changed since" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("guard", ["", 'if __name__ != "__main__":\n    '])
def test_a_file_that_trains_when_it_is_loaded_is_refused(weighted, guard, tmp_path):
    train = f"import mtljax\n{guard}mtljax.train(experiment, {str(tmp_path / 'again')!r})\n"
    weighted.write_text(FILE + train)
    with pytest.raises(ValueError, match=r"weighted.py: line .*put it under `if __name__ =="):
        find_experiment("weighted.py")
    assert not (tmp_path / "again").exists()
    weighted.write_text(FILE + 'if __name__ == "__main__":\n    raise KeyError\n')
    find_experiment("weighted.py")


def test_a_changed_file_is_reported_or_refused(weighted, recorded, monkeypatch, capsys):
    read_config(recorded, exact=True)
    assert capsys.readouterr().out == ""
    weighted.write_text(FILE + "# changed\n")
    read_config(later(monkeypatch, recorded))
    assert "weighted.py has changed since" in " ".join(capsys.readouterr().out.split())
    later(monkeypatch)
    with pytest.raises(ValueError, match=r"has changed since .* signed"):
        read_config(recorded, exact=True)
    assert not os.path.exists("executed")
    later(monkeypatch)
    check_folder(recorded.parent, find_experiment("weighted.py"))
    assert "has changed since" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file:{path}#Missing", "defines no task class 'Missing'"),
        ("file:{path}#dataclasses", "defines no task class 'dataclasses'"),
        ("os:system", "defines no task class 'system'"),
        ("mtljax_no_such_package:Task", "not found here; install it"),
        ("Weighted", "unknown task kind 'Weighted'"),
        ("__main__:Missing", r"load_run\(PATH, tasks=\[Missing\]\)"),
    ],
)
def test_a_name_that_is_no_task_class(weighted, recorded, text, message):
    config = json.loads(recorded.read_text())
    config["tasks"][0]["task"] = text.format(path=weighted)
    with pytest.raises(ValueError, match=message):
        from_json(config)


def test_a_file_that_ends_the_process_is_named_with_its_line(weighted, recorded, monkeypatch):
    weighted.write_text("import dataclasses\nraise SystemExit(3)\n")
    with pytest.raises(ValueError, match=r"weighted.py: line 2: SystemExit: 3"):
        read_config(later(monkeypatch, recorded))


def local():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Local(Regression):
        pass

    return Local


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithArray(Regression):
    weights: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(2), compare=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithCosts(Regression):
    costs: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithLimit(Regression):
    limit: float = float("inf")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (local(), "Local cannot be recorded in config.json: define it at the top level"),
        (type("Made", (Regression,), {}), "Made cannot be recorded"),
        (WithArray, "field weights of WithArray cannot be recorded"),
        (WithLimit, "field limit of WithLimit cannot be recorded"),
    ],
)
def test_a_task_that_cannot_be_recorded_is_refused_before_training(task, message, tmp_path):
    data = Data(source="arrays", batch_size=8)
    experiment = Experiment(name="e", tasks=(task(name="a"),), data=data, trunk="mlp", steps=1)
    with pytest.raises(ValueError, match=message):
        mtljax.train(experiment, tmp_path / "run", load=lambda _: pytest.fail("data was read"))
    assert not (tmp_path / "run").exists()


def test_a_task_that_cannot_be_part_of_a_model_is_refused():
    data = Data(source="arrays", batch_size=8)
    with pytest.raises(ValueError, match="task 'a': costs of WithCosts must be hashable, such as"):
        Experiment(name="e", tasks=(WithCosts(name="a"),), data=data)


def test_lists_in_tasks_become_tuples():
    tasks = [
        Classification(name="a", class_names=["cat", "dog"]),
        Keypoints(name="b", num_keypoints=2, pairs=[[0, 1]]),
        Regression(name="c", size=2, center=[0.0, 1.0], scale=[1.0, 2.0]),
        Segmentation(name="d", num_classes=2, colors=[[0, 0, 0], (1, 2, 3)]),
    ]
    assert tasks[1].pairs == ((0, 1),)
    assert tasks[3].colors == ((0, 0, 0), (1, 2, 3))
    data = Data(source="arrays", batch_size=8)
    experiment = Experiment(name="e", tasks=tasks, data=data)
    assert isinstance(experiment.tasks, tuple)
    assert from_json(to_json(experiment)) == experiment
    hash(experiment.tasks)


def test_the_flags_of_a_class_of_an_experiment_file_are_described(weighted, capsys):
    text = FILE.replace("] = (1.0,)", '] = (1.0,)\n    """Factors of the loss."""')
    weighted.write_text(text)
    with pytest.raises(SystemExit):
        main(["--experiment", "weighted.py", "--help"])
    assert "Factors of the loss." in capsys.readouterr().out


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfModule(Regression):
    """A class of an ordinary module."""

    costs: tuple[tuple[str, float], ...] = (("cat", 2.0),)


TASK_OF_MODULE = OfModule(name="a")


def test_a_class_of_an_imported_module_is_recorded():
    data = Data(source="arrays", batch_size=8)
    experiment = Experiment(name="e", tasks=(OfModule(name="a"),), data=data)
    assert from_json(to_json(experiment)) == experiment


def test_a_class_that_was_defined_again_is_refused(monkeypatch):
    again = type("OfModule", (Regression,), {"__module__": __name__})
    monkeypatch.setattr(sys.modules[__name__], "OfModule", again)
    data = Data(source="arrays", batch_size=8)
    with pytest.raises(ValueError, match="OfModule has been defined again .* create the task"):
        to_json(Experiment(name="e", tasks=(TASK_OF_MODULE,), data=data))


@pytest.mark.parametrize("file", [None, "<stdin>"])
def test_a_class_of_a_notebook_is_given_when_the_run_is_loaded(file, tmp_path, monkeypatch):
    notebook = sys.modules["__main__"]
    monkeypatch.setattr(notebook, "__file__", file, raising=False)
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(
        type("InNotebook", (Regression,), {"__module__": "__main__"})
    )
    monkeypatch.setattr(notebook, "InNotebook", cls, raising=False)
    random = np.random.default_rng(0)
    image, label = random.random((40, 4, 4, 1), np.float32), random.random(40, np.float32)
    experiment = Experiment(
        name="e",
        tasks=(cls(name="a", center=0.0, scale=1.0),),
        data=Data(source="arrays", batch_size=8),
        trunk="mlp:widths=(4,)",
        steps=1,
    )
    mtljax.train(experiment, tmp_path / "run", source=from_arrays(image, {"a": label}), quiet=True)
    monkeypatch.delattr(notebook, "InNotebook")  # as in another process
    with pytest.raises(ValueError, match=r"defined in a notebook: load the run by"):
        load_run(tmp_path / "run")
    for given in (cls, experiment.tasks[0]):
        assert load_run(tmp_path / "run", tasks=[given]).experiment == experiment


def test_every_verb_uses_a_run_with_a_class_of_an_experiment_file(weighted, monkeypatch, capsys):
    random = np.random.default_rng(0)
    labels = {name: random.random(60, np.float32) for name in "ab"}
    np.savez("data.npz", image=random.random((60, 4, 4, 1), np.float32), **labels)
    np.save("x.npy", np.zeros((4, 4, 1), np.float32))

    def call(*arguments):
        later(monkeypatch)
        assert main([*arguments]) == 0, capsys.readouterr().err

    run = ("--run", "run")
    train = ("--experiment", "weighted.py", "--workdir", "run")
    call(*train, "--data.workers", "1", "--data.keep-on-device", "no")
    call(*train, "--data.workers", "1", "--data.keep-on-device", "no")
    assert "is finished already" in capsys.readouterr().out
    call("evaluate", *run)
    call("predict", *run, "x.npy")
    call("export", *run, "--to", "safetensors")
    call("--experiment", "run/config.json", "--workdir", "again")
    call("--experiment", "weighted.py", "--workdir", "second", "--init", "run")
    call(*("compare", "--experiment", "weighted.py", "--workdir", "all"), "--balancers", "ew")
    monkeypatch.setenv("XDG_STATE_HOME", "nobody")
    later(monkeypatch)
    assert main(["predict", *run, "x.npy"]) == 2
    assert "is therefore not executed" in " ".join(capsys.readouterr().err.split())
    assert transfer.read(transfer.locate("run")).low == 0.0  # needs no code
