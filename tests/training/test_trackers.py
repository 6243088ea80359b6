"""Trackers: what reaches MLflow, and what happens if it does not."""

import importlib.util
import json
import math
import sys
from types import SimpleNamespace

import pytest
from support import small_run
from support.cli import SMALL

from mtljax.main import main
from mtljax.training import trackers
from mtljax.training.trackers import MLflow, Trackers

needs_mlflow = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="the extra mlflow is not installed"
)
FLAGS = ("--log-every", "2", "--eval-every", "4", "--quiet")


@needs_mlflow
@pytest.mark.filterwarnings("default")  # of MLflow and its dependencies
def test_a_run_that_is_resumed_is_one_run_in_mlflow(tmp_path, capfd):
    from mlflow import MlflowClient

    uri, folder = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "run"
    command = [*SMALL, *FLAGS, "--workdir", str(folder), "--mlflow", uri]
    assert main([*command, "--steps", "4"]) == 0
    client = MlflowClient(tracking_uri=uri)
    (experiment,) = client.search_experiments(filter_string="name = 'digits'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert run.data.params["data/source"] == "digits"
    assert run.data.params["tasks/0/name"] == "digit"
    history = client.get_metric_history(run.info.run_id, "loss/digit")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    expected = {line["step"]: line["loss"]["digit"] for line in lines if "loss" in line}
    assert {point.step: point.value for point in history} == pytest.approx(expected)
    result = json.loads((folder / "result.json").read_text())
    found = run.data.metrics["test/digit/accuracy"]
    assert found == pytest.approx(result["test"]["digit"]["accuracy"])

    assert main([*command, "--steps", "8"]) == 0
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "validation/value/mae")
    assert {point.step for point in history} == {4, 8}
    assert capfd.readouterr() == ("", "")


@needs_mlflow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("uri", ["nowhere://x", "sqlite:////dev/null/mlflow.db", "folder"])
def test_a_store_that_cannot_be_used_is_refused_in_one_line(uri, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    command = [*SMALL, *FLAGS, "--steps", "4", "--workdir", str(folder), "--mlflow", uri]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"mtljax: --mlflow {uri}: not a store that can be used, such as sqlite")
    assert err.count("\n") == 1
    assert not folder.exists()


class Client:
    """Fake client, which fails from the call number `fails_at` on."""

    def __init__(self, fails_at=math.inf):
        self.calls, self.fails_at = [], fails_at

    def __getattr__(self, name):
        def call(*arguments, **named):
            if len(self.calls) >= self.fails_at:
                raise ConnectionError("no route to host\nTraceback ...")
            self.calls.append((name, arguments, named))
            return SimpleNamespace(info=SimpleNamespace(run_id="7"), experiment_id="1")

        return call


@pytest.fixture
def connected(monkeypatch):
    """Function that replaces the client, and the two classes of MLflow that are used."""

    def connect(client):
        monkeypatch.setattr(trackers, "_mlflow_client", lambda uri: client)
        entities = SimpleNamespace(Metric=lambda *values: values, Param=lambda *values: values)
        monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
        monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(entities=entities))
        return client

    return connect


def test_names_and_unknown_values_are_adapted(connected, tmp_path):
    client = connected(Client())
    tracker = MLflow("uri", small_run.EXPERIMENT, tmp_path)
    del client.calls[:]
    tracker.write({"loss/größe [cm]": 1.5, "loss/b": math.nan}, 3)
    ((name, arguments, named),) = client.calls
    assert (name, arguments) == ("log_batch", ("7",))
    assert [(metric[0], metric[1], metric[3]) for metric in named["metrics"]] == [
        ("loss/gr__e _cm_", 1.5, 3)
    ]


def test_a_store_that_fails_later_ends_the_tracking_not_the_training(connected, tmp_path, capsys):
    client = connected(Client())
    tracker = MLflow("uri", small_run.EXPERIMENT, tmp_path)
    client.fails_at = 0
    for step in (1, 2):
        tracker.write({"a": 1.0}, step)
    tracker.close(is_finished=True)
    warning = "warning: MLflow failed and is not used any more: no route to host\n"
    assert capsys.readouterr().out == warning


def test_a_run_that_the_store_lacks_is_created_anew(connected, tmp_path):
    (tmp_path / "mlflow").write_text("gone\n")

    class Empty(Client):
        def update_run(self, *arguments, **named):
            raise KeyError("no such run")

    client = connected(Empty())
    MLflow("uri", small_run.EXPERIMENT, tmp_path)
    assert "create_run" in [name for name, *_ in client.calls]
    assert (tmp_path / "mlflow").read_text() == "7\n"


def test_without_the_extra_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ValueError, match=r"--mlflow needs mlflow: pip install 'mtljax\[mlflow\]'"):
        Trackers(mlflow="sqlite:///x.db").check()
