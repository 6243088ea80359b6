"""The command line as a user meets it: every verb, and every kind of bad input."""

import functools
import json
import re
import shutil
import typing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.cli import SMALL, TRAINED, finish, start, without_announcements

from mtljax.cli.catalog import KINDS, entries
from mtljax.cli.verbs import VERBS
from mtljax.cli.verbs.experiment import read_experiment
from mtljax.cli.verbs.train import TrainFlags
from mtljax.cli.verbs.use_run import EvaluateFlags, ExportFlags
from mtljax.data import SOURCES, Arrays, Source
from mtljax.evaluation.evaluator import scalar_metrics
from mtljax.evaluation.predict import ALL, SPLITS
from mtljax.evaluation.predictor import read_image
from mtljax.exporters import EXPORTS
from mtljax.main import main
from mtljax.models import TRUNKS
from mtljax.runs.folder import read_result
from mtljax.runs.load import load_run

QUICK = (*SMALL, "--steps", "2", "--data.batch-size", "16")


def contents(folder):
    """Everything in a folder, to see that nothing was touched."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """Runs a command that must be refused: status 2, one line, nothing written. Gives the line."""

    def run(*arguments, folder=tmp_path):
        before = contents(folder)
        assert main([str(a) for a in arguments]) == 2
        out, err = capsys.readouterr()
        assert without_announcements(out) == ""
        assert err.count("\n") == 1
        assert err.startswith("mtljax: ")
        assert len(err) < 400
        assert contents(folder) == before
        return err.removeprefix("mtljax: ").strip()

    monkeypatch.chdir(tmp_path)
    return run


BAD_FLAGS = {
    ("--experiment", "digit"): "unknown experiment 'digit'; did you mean 'digits'?",
    ("--experiment", "mine.py"): "experiment file mine.py does not exist",
    ("--experiment", "mine.json"): "mine.json does not exist",
    ("--experiment",): "missing --experiment NAME; `list experiments` shows the names",
    ("--steps", "3"): "missing --experiment NAME",
    ("--experimnt", "digits"): "unknown flag '--experimnt'; did you mean '--experiment'?",
    ("digits",): "unknown verb 'digits'; to train this experiment, write --experiment digits",
    ("trian",): "unknown verb 'trian'; did you mean 'train'?",
    ("list", "balancrs"): "unknown kind 'balancrs'; did you mean 'balancers'?",
    ("list", "trunk", "resnt50"): "unknown trunk 'resnt50'; did you mean 'resnet50'?",
    ("list", "--kind", "x"): "unknown flag '--kind'",
    ("evaluate",): "--run is missing; add --run ...",
    ("evaluate", "--rum", "x"): "unknown flag '--rum'; did you mean '--run'?",
    ("evaluate", "--run", "x", "--splt", "y"): "unknown flag '--splt'; did you mean '--split'?",
    ("evaluate", "--run", "nowhere"): "no run folder nowhere",
    ("evaluate", "--run", "."): ". is not a run folder: it has no config.json",
    ("predict", "--run", "nowhere"): "missing images: predict --run DIR IMAGE ...",
    ("predict", "--run", "nowhere", "a.png"): "no run folder nowhere",
}


@pytest.mark.parametrize("arguments", BAD_FLAGS, ids=" ".join)
def test_misspelt_commands_name_the_nearest(arguments, refused):
    assert BAD_FLAGS[arguments] in refused(*arguments)


@pytest.mark.parametrize("word", ["none", "None"])
def test_a_flag_that_may_have_no_value_takes_none(word):
    line = ["--experiment", "digits", "--ema", word, "--init", word]
    _, experiment = read_experiment(line, "train", "Trains", TrainFlags)
    assert experiment.ema is experiment.init is None


BAD_VALUES = {
    "--steps abc": "--steps must be an integer, not 'abc'",
    "--steps 2.5": "--steps must be an integer, not '2.5'",
    "--steps 0": "steps must be >= 1, not 0",
    "--pullback x": "--pullback must be auto, vmap, loop or an integer, not 'x'",
    "--pullback 0": "pullback must be auto, vmap, loop or >= 1, not 0",
    "--steps": "--steps needs a value",
    "--seed -1": "seed must be >= 0, not -1",
    "--learning-rate fast": "--learning-rate must be a number, not 'fast'",
    "--learning-rate 0": "learning_rate must be > 0 and finite, not 0.0",
    "--learning-rate inf": "learning_rate must be > 0 and finite, not inf",
    "--clip-norm abc": "--clip-norm must be none or a number, not 'abc'",
    "--clip-norm 0": "clip_norm must be > 0, not 0.0",
    "--ema 1": "ema must be in [0, 1), not 1.0",
    "--level feature": "--level cannot be 'feature'; did you mean 'features'? (choose from",
    "--heads weighed": "--heads cannot be 'weighed'; did you mean 'weighted'?",
    "--data.keep-on-device maybe": "--data.keep-on-device cannot be 'maybe'; did you mean ",
    "--quiet=3": "unexpected argument '3'",
    "--remat yes": "unexpected argument 'yes'",
    "--stepz 3": "unknown flag '--stepz'; did you mean '--steps'?",
    "--batch-size 3": "unknown flag '--batch-size'; did you mean '--data.batch-size'?",
    "--tasks.0.num-classes 1": "task 'digit': num_classes must be >= 2, not 1",
    "--tasks.1.name digit": "two tasks are named 'digit'",
    "--tasks.1.name a:b": "invalid task name 'a:b'",
    "--tasks.1.name valu": "no labels 'valu' for task 'valu'; did you mean 'value'?",
    "--tasks.0.num-classes 5": "task 'digit': label of example",
    "--name a/b": "invalid experiment name 'a/b'",
    "--trunk mpl": "unknown trunk 'mpl'; did you mean 'mlp'?",
    "--trunk mlp:width=3": "trunk 'mlp' has no argument 'width'; did you mean 'widths'?",
    "--trunk mlp:widths=a": "trunk 'mlp': widths must be ",
    "--trunk mlp:64": "'64' is not argument=value",
    "--fusion atention": "unknown fusion 'atention'; did you mean 'attention'?",
    "--fusion attention:heads=x": "heads must be an integer, not 'x'",
    "--balancer pcgrd": "unknown balancer 'pcgrd'; did you mean 'pcgrad'?",
    "--balancer cagrad:d=1": "balancer 'cagrad' has no argument 'd'",
    "--balancer fixed:weights=(1,2,3)": "3 ",
    "--balancer graddrop --heads weighted": "heads='weighted' needs weights",
    "--optimizer adamm": "unknown optimizer 'adamm'; did you mean 'adam'?",
    "--optimizer adamw:mask=1": "optimizer 'adamw' has no argument 'mask'",
    "--optimizer sgd:momentum=much": "optimizer 'sgd",
    "--schedule cosin": "unknown schedule 'cosin'; did you mean 'cosine'?",
    "--schedule cosine:warmup=-1": "warmup must be >= 0 steps, not -1",
    "--data.source digit": "unknown source 'digit'; did you mean 'digits'?",
    "--data.augment afine": "unknown augmentation 'afine'; did you mean 'affine'?",
    "--data.batch-size 2000": "a batch of 2000 is larger than the training data (1293 examples); ",
    "--data.batch-size 12": "a batch of 12 cannot be sharded evenly over 8 devices",
    "--data.batch-size 0": "data.batch_size must be >= 1, not 0",
    "--microbatches 3": "a batch of 16 cannot be split into 3 equal microbatches",
    "--select digit/acuracy": "select cannot be 'digit/acuracy'; did you mean 'digit/accuracy'?",
    "--select value/rsme": "select cannot be 'value/rsme'; did you mean 'value/rmse'?",
    "--devices 99": "--devices 99 is not possible: there is 8 x cpu; give a number in 1..8",
    "--devices 0": "--devices 0 is not possible",
    "--devices x": "--devices must be none or an integer, not 'x'",
    "--process-id 0": "several processes need --coordinator HOST:PORT, that of process 0",
    "--coordinator localhost": "--coordinator must be HOST:PORT of process 0",
    "--coordinator localhost:1": "needs --num-processes N and --process-id I too",
    "--coordinator a:1 --num-processes 2 --process-id 2": "--process-id must be in 0..1 with ",
    "--timeout-minutes 0": "--timeout-minutes must be > 0, not 0",
    "--coordinator a:99999 --num-processes 2 --process-id 0": "--coordinator must be HOST:PORT",
}


@pytest.mark.parametrize("flags", BAD_VALUES)
def test_bad_values_are_refused_before_anything_is_made(flags, refused):
    flags = flags.split()
    assert BAD_VALUES[" ".join(flags)] in refused(*QUICK, *flags, "--workdir", "run")


def test_several_processes_need_a_folder_that_all_know(refused):
    assert "needs --workdir, a folder shared by all" in refused(
        *QUICK, "--coordinator", "localhost:1234"
    )


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("file", "file is a file, not a folder"),
        ("file/below", "cannot write to file/below: Not a directory"),
        ("/proc/mtljax", "cannot write to /proc/mtljax: No such file or directory"),
        ("occupied", "occupied is not empty and not a run folder"),
    ],
)
def test_folders_that_cannot_be_run_folders(where, reason, refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "thesis.tex").write_text("mine")
    line = refused(*QUICK, "--workdir", where)
    assert reason in line
    assert line.endswith("choose another --workdir")


CHANGED = [("--seed", "1"), ("--tasks.0.label-smoothing", "0.1"), ("--name", "other")]


@pytest.mark.parametrize("change", CHANGED, ids=" ".join)
def test_folder_of_another_experiment(change, refused, trained_run):
    line = refused(*TRAINED, *change, "--workdir", trained_run, folder=trained_run)
    assert change[1] in line
    assert "choose another --workdir" in line


@pytest.mark.parametrize("name", ["config.json", "input.json", "result.json", "metrics.jsonl"])
@pytest.mark.parametrize("damage", ["truncated", "other"])
def test_damaged_run_files(name, damage, refused, trained_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    text = (run / name).read_text()
    (run / name).write_text(text[: len(text) // 3] + "\n" if damage == "truncated" else "[1]\n")
    if name == "input.json":
        line = refused("predict", "--run", run, "a.png")
    else:
        line = refused(*TRAINED, "--workdir", run)
    assert name in line
    assert "delete" in line


def test_a_damaged_checkpoint_is_named(refused, trained_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    for file in (run / "checkpoints" / "7" / "default").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert "checkpoints/7 is damaged" in refused("evaluate", "--run", run)
    (run / "result.json").unlink()
    assert "checkpoints/7 is damaged" in refused(*TRAINED, "--workdir", run)


def test_a_run_without_a_checkpoint(refused, trained_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    shutil.rmtree(run / "checkpoints")
    assert "has no checkpoint yet" in refused("evaluate", "--run", run)


def labeled(digit=0, value=0.0, size=32):
    """A source whose labels may be wrong in the training part."""

    def split(digit, value):
        labels = {"digit": np.full(size, 1, np.int32), "value": np.full(size, 1.0, np.float32)}
        labels["digit"][3], labels["value"][5] = digit, value
        present = {name: np.ones(size, bool) for name in labels}
        return Arrays(np.zeros((size, 8, 8, 1), np.float32), labels, present)

    good = split(0, 0.0)
    return Source(
        train=split(digit, value), validation=good, test=good, mean=0, std=1, low=0, high=1
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            {"digit": 10},
            "task 'digit': label of example 3 is 10; a class must be an integer in 0..9",
        ),
        (
            {"digit": -1},
            "task 'digit': label of example 3 is -1; a class must be an integer in 0..9",
        ),
        ({"value": np.nan}, "task 'value': label of example 5 is nan; labels must be finite"),
        ({"value": np.inf}, "task 'value': label of example 5 is inf; labels must be finite"),
        ({"size": 8}, "a batch of 16 is larger than the training data (8 examples)"),
        ({"size": 0}, "has no examples"),
    ],
)
def test_labels_that_cannot_be_learned(source, reason, refused, monkeypatch):
    if source == {"size": 0}:
        empty = Arrays(np.zeros((0, 8, 8, 1), np.float32), {}, {})
        made = Source(train=empty, validation=empty, test=empty, mean=0, std=1, low=0, high=1)
    else:
        made = labeled(**source)
    monkeypatch.setitem(SOURCES, "digits", lambda: made)
    line = refused(*QUICK, "--workdir", "run")
    assert reason in line
    assert "source 'digits'" in line or "batch" in line


OWN = """
from mtljax.config import Data, Experiment
from mtljax.tasks import Classification

experiment = Experiment(
    name="mine",
    tasks=(Classification(name="digit", num_classes=10),),
    data=Data(source="digits", batch_size=32),
    trunk="mlp:widths=(16,)",
    steps=3,
)
"""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("experiment =", "experimen ="), "does not define `experiment = mtljax.Experiment"),
        (("steps=3", "stepz=3"), "line 5: TypeError: "),
        (("steps=3", "steps=("), "line 5: "),
        (("num_classes=10", "num_classes=1"), "num_classes must be >= 2, not 1"),
        (
            ('(Classification(name="digit", num_classes=10),)', "()"),
            "tasks is empty: an experiment needs",
        ),
        (("tasks import", "task import"), "No module named 'mtljax.task'"),
    ],
)
def test_an_experiment_file_with_a_mistake(change, reason, refused, tmp_path):
    (tmp_path / "mine.py").write_text(OWN.replace(*change))
    line = refused("--experiment", "mine.py", "--workdir", "run")
    assert reason in line
    assert "mine.py" in line


def test_an_experiment_file_of_ones_own_trains(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    flags = ["--experiment", str(tmp_path / "mine.py"), "--workdir", str(tmp_path / "run")]
    assert main([*flags, "--quiet"]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["experiment"] == "mine"
    assert set(result["test"]) == {"digit"}


BAD_CONFIG = [
    ({"steps": "many"}, "steps must be an integer, not 'many'"),
    ({"stepz": 3}, "experiment has no field 'stepz'; did you mean 'steps'?"),
    ({"level": "feature"}, "level must be one of parameters, features, not 'feature'"),
    ({"data": {"batch_size": 3}}, "data: field 'source' is missing"),
    ({"data": []}, "data must be a JSON object"),
    ({"tasks": [{"task": "clasification"}]}, "did you mean 'classification'?"),
    ({"tasks": [3]}, "a task must be a JSON object, not 3"),
    ({"tasks": []}, "tasks is empty: an experiment needs at least one"),
    ({"ema": "x"}, "ema must be a number or none, not 'x'"),
]


@pytest.mark.parametrize(("change", "reason"), BAD_CONFIG, ids=[r for _, r in BAD_CONFIG])
def test_a_configuration_with_a_mistake(change, reason, refused, trained_run, tmp_path):
    config = json.loads((trained_run / "config.json").read_text())
    (tmp_path / "changed.json").write_text(json.dumps({**config, **change}))
    line = refused("--experiment", "changed.json", "--workdir", "run")
    assert reason in line
    assert line.startswith("changed.json: ")


def test_configurations_that_are_none(refused, tmp_path):
    (tmp_path / "cut.json").write_text('{"name": "dig')
    assert "cut.json is not valid JSON" in refused("--experiment", "cut.json")
    (tmp_path / "list.json").write_text("[]")
    assert "is not the configuration of an experiment" in refused("--experiment", "list.json")


def test_files_that_are_no_images(refused, trained_run, tmp_path):
    picture = tmp_path / "good.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(picture)
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_text("")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "nan.npy", np.full((8, 8), np.nan))
    np.save(tmp_path / "line.npy", np.zeros(8))
    np.save(tmp_path / "wide.npy", np.zeros((8, 8, 7)))
    np.save(tmp_path / "words.npy", np.full((8, 8), "a"))
    np.savez(tmp_path / "several.npz", a=np.zeros((8, 8)))
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    reasons = {
        "none.png": "no image file none.png",
        "empty": "no image files in empty; extensions: .png",
        "*.gif": "no file matches *.gif",
        "text.png": "text.png: cannot be read as an image: its format is not known",
        "empty.png": "empty.png: cannot be read as an image",
        "cut.png": "cut.png: cannot be read as an image: ",
        "text.npy": "text.npy: cannot be read as an array",
        "nan.npy": "nan.npy: has pixels that are NaN or infinite",
        "line.npy": "line.npy: an array of shape (8,) and type float64; must be numbers [H, W]",
        "wide.npy": "wide.npy: has 7 channels; the model takes 1",
        "words.npy": "words.npy: an array of shape (8, 8) and type <U1; must be numbers",
        "several.npy": "several.npy: cannot be read as an array",
    }
    (tmp_path / "empty").mkdir()
    for name, reason in reasons.items():
        line = refused("predict", "--run", trained_run, name, "--output", "out.json")
        assert reason in line


def test_outputs_that_cannot_be_written_are_refused_first(refused, trained_run, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    predict = ("predict", "--run", trained_run, "a.png", "--output")
    assert "there is no folder nowhere; create it first" in refused(*predict, "nowhere/a.json")
    assert "it is a folder" in refused(*predict, tmp_path)
    evaluate = ("evaluate", "--run", trained_run, "--output")
    assert "there is no folder nowhere; create it first" in refused(*evaluate, "nowhere/a.json")


def test_unknown_split(refused, trained_run):
    line = refused("evaluate", "--run", trained_run, "--split", "tset", folder=trained_run)
    assert line.startswith("--split cannot be 'tset'; did you mean 'test'?")


def test_a_finished_run_prints_its_table_and_is_left_alone(capsys, trained_run):
    before = contents(trained_run)
    assert main([*TRAINED, "--workdir", str(trained_run)]) == 0
    out, err = capsys.readouterr()
    assert "is finished already" in out
    assert "accuracy" in out
    assert err == ""
    assert contents(trained_run) == before


def test_the_run_folder_is_complete(trained_run):
    names = {path.name for path in trained_run.iterdir()}
    files = {"config.json", "input.json", "metrics.jsonl", "result.json", "report.html"}
    assert names == files | {"checkpoints", "plots"}
    lines = [json.loads(line) for line in (trained_run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 3, 4, 6, 7]
    assert [line["step"] for line in lines if "validation" in line] == [3, 6, 7]
    result = json.loads((trained_run / "result.json").read_text())
    assert result["best_step"] in (3, 6, 7)
    assert result["ms_per_step"] > 0


def test_the_result_lists_what_needs_no_network(trained_run, capsys):
    data = SOURCES["digits"]()
    train, test = (split.labels["digit"] for split in (data.train, data.test))
    result = read_result(trained_run)
    constant = {task: scalar_metrics(m) for task, m in result.constant_predictor.items()}
    assert {task: metrics.keys() for task, metrics in constant.items()} == {
        task: scalar_metrics(metrics).keys() for task, metrics in result.test.items()
    }
    accuracy = np.mean(test == np.bincount(train).argmax())
    assert constant["digit"]["accuracy"] == pytest.approx(accuracy)
    assert constant["value"]["mae"] == pytest.approx(np.abs(test - train.mean()).mean())
    written = json.loads((trained_run / "result.json").read_text())
    assert written["trivial"] == result.constant_predictor
    assert main([*TRAINED, "--workdir", str(trained_run)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"validation\W+test\W+constant ", out)
    assert f" {accuracy:.4f} │\n" in out


def test_config_json_alone_reruns_to_the_same_result(trained_run, tmp_path):
    flags = ["--experiment", str(trained_run / "config.json"), "--workdir", str(tmp_path / "run")]
    assert main([*flags, "--quiet"]) == 0
    first, second = (
        json.loads((folder / "result.json").read_text())
        for folder in (trained_run, tmp_path / "run")
    )
    timings = "seconds", "train_seconds", "compile_seconds", "ms_per_step", "examples_per_second"
    for timing in timings:
        del first[timing], second[timing]
    assert first == second
    config = (trained_run / "config.json").read_text()
    assert (tmp_path / "run" / "config.json").read_text() == config


@pytest.mark.full
@pytest.mark.parametrize(
    "flags",
    [
        ("--steps", "1", "--log-every", "50", "--data.batch-size", "1293", "--devices", "1"),
        ("--steps", "5", "--log-every", "3", "--eval-every", "2", "--data.keep-on-device", "no"),
    ],
    ids=["one batch of everything", "streamed"],
)
def test_odd_numbers_of_steps(flags, tmp_path):
    assert main([*SMALL, *flags, "--workdir", str(tmp_path), "--quiet"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = int(flags[1])
    assert [line["step"] for line in lines if "loss" in line][-1] == steps
    assert [line["step"] for line in lines if "validation" in line][-1] == steps
    device = "1 x cpu" if "--devices" in flags else "8 x cpu"
    assert json.loads((tmp_path / "result.json").read_text())["device"] == device


@pytest.mark.full
def test_quiet_prints_nothing_and_tensorboard_gets_every_line(capfd, tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    flags = ("--steps", "4", "--log-every", "2", "--eval-every", "4", "--tensorboard", "--quiet")
    assert main([*SMALL, *flags, "--workdir", str(tmp_path)]) == 0
    assert capfd.readouterr() == ("", "")
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, found = file.read_bytes(), set()
    while data:
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        found |= {(value.tag, event.step) for value in event.summary.value}
        data = data[16 + size :]
    assert {("loss/digit", 2), ("loss/digit", 4), ("validation/value/mae", 4)} <= found


def test_evaluate_repeats_the_result_of_training(capsys, trained_run, tmp_path):
    result = json.loads((trained_run / "result.json").read_text())
    for split in ("validation", "test"):
        output = tmp_path / f"{split}.json"
        flags = ["--run", str(trained_run), "--split", split, "--output", str(output)]
        assert main(["evaluate", *flags]) == 0
        assert f"{split} split" in capsys.readouterr().out
        found = json.loads(output.read_text())
        assert found["step"] == result["best_step"]
        for task, metrics in result[split].items():
            for name, value in metrics.items():
                # Summed in another order: on one device instead of eight.
                np.testing.assert_allclose(found["metrics"][task][name], value, rtol=1e-5)


def test_predict_reads_all_kinds_of_images(capsys, trained_run, tmp_path):
    from sklearn.datasets import load_digits

    digit = load_digits().images[5]
    small = np.round(digit / 16 * 255).astype(np.uint8)
    large = np.kron(small, np.ones((9, 9), np.uint8))
    Image.fromarray(small).save(tmp_path / "small.png")
    Image.fromarray(large).save(tmp_path / "large.png")
    Image.fromarray(large).convert("RGB").save(tmp_path / "photo.jpeg", quality=95)
    Image.fromarray(large).convert("RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(large.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(large).convert("P").save(tmp_path / "palette.png")
    np.save(tmp_path / "exact.npy", digit)
    np.save(tmp_path / "channel.npy", digit[..., None].astype(np.float32))
    names = [path.name for path in sorted(tmp_path.iterdir())]
    output = tmp_path / "out.json"
    images = [str(tmp_path / name) for name in names]
    assert main(["predict", "--run", str(trained_run), "--output", str(output), *images]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = {Path(e["image"]).name: e for e in json.loads(output.read_text())}
    assert list(found) == names
    assert len(re.findall(rf" digit +{found['exact.npy']['digit']['text']} ", out)) == len(names)
    value = lambda name: found[name]["value"]["prediction"]
    # 8-bit rounding moves a pixel by up to 1/32, JPEG by more. Resizing is a triangle filter, which
    # blurs the enlarged ones a little, all alike; pictures of 8 bits are rounded once more.
    assert value("channel.npy") == value("exact.npy")
    assert value("small.png") == pytest.approx(value("exact.npy"), abs=0.05)
    assert value("photo.jpeg") == pytest.approx(value("large.png"), abs=0.05)
    for name in ("rgba.png", "palette.png"):
        assert value(name) == pytest.approx(value("large.png"), abs=1e-5)
    assert value("deep.png") == pytest.approx(value("large.png"), abs=0.05)


def test_transparent_images_lie_on_white_and_shrink_by_means(trained_run, tmp_path):
    trained = load_run(trained_run)
    read = lambda name: read_image(tmp_path / name, trained)[..., 0]
    gray, alpha = np.full((8, 8), 51, np.uint8), np.zeros((8, 8), np.uint8)
    alpha[:, :4] = 255
    Image.merge("LA", [Image.fromarray(x) for x in (gray, alpha)]).save(tmp_path / "half.png")
    palette = Image.fromarray(alpha).convert("P")
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((7, 0)))
    np.testing.assert_allclose(read("half.png"), np.where(alpha, 16 * 51 / 255, 16), rtol=1e-6)
    assert (read("palette.png") == 16).all()

    stripes = np.tile([0, 255], (64, 32)).astype(np.uint8)  # one pixel wide, 8 to a cell
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    inner = read("stripes.png")[:, 1:-1]  # at the borders a part of the triangle is missing
    np.testing.assert_allclose(inner, 8, rtol=1e-5)


def test_photos_are_turned_as_the_camera_says(trained_run, tmp_path):
    upright = np.zeros((24, 16), np.uint8)
    upright[:8] = 255
    Image.fromarray(upright).save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to show"
    Image.fromarray(np.rot90(upright)).save(tmp_path / "turned.png", exif=exif)
    trained = load_run(trained_run)
    upright, turned = (
        read_image(tmp_path / f"{name}.png", trained) for name in ("upright", "turned")
    )
    assert (upright == turned).all()


@pytest.mark.parametrize("kind", KINDS)
def test_list_shows_every_name(kind, capsys):
    assert main(["list", kind]) == 0
    out = capsys.readouterr().out
    for entry in entries(kind):
        assert re.search(rf"^\s*{re.escape(entry.name)}\b", out, re.MULTILINE)
        assert entry.summary


@pytest.mark.parametrize("kind", KINDS)
def test_list_verbose_describes_every_entry_and_argument(kind, capsys):
    assert main(["list", kind, "--verbose"]) == 0
    out = capsys.readouterr().out
    assert "partial(" not in out
    for entry in entries(kind):
        assert f"{kind.removesuffix('s')} {entry.name}\n" in out
        assert entry.description
        for argument in entry.arguments:
            assert re.search(rf"^ +{argument.name} ", out, re.MULTILINE)


def test_list_shows_one_entry_with_the_defaults_and_help_of_its_arguments(capsys):
    assert main(["list", "balancer", "cagrad"]) == 0
    out = capsys.readouterr().out
    assert "arXiv:2110.14048" in out
    assert "Reads: gramian" in out
    assert re.search(r"^ +c +0.5 +float +Radius, in \[0, 1\)", out, re.MULTILINE)
    assert "pcgrad" not in out
    assert main(["list", "trunks", "resnet18", "mlp"]) == 0
    assert "Blocks of each stage" in capsys.readouterr().out  # described by `resnet`


def test_list_hides_arguments_that_are_not_the_users():
    names = lambda kind: {a.name for entry in entries(kind) for a in entry.arguments}
    assert not names("fusions") & {"trunk", "tasks", "parent", "name"}
    assert not names("sources") & {"requests", "decoder"}
    assert not names("optimizers") & {"learning_rate", "mask"}
    assert not names("augmentations") & {"tasks"}


def test_partial_functions_are_listed_as_what_they_call(monkeypatch):
    partial = functools.partial(TRUNKS["mlp"], widths=(3,))
    monkeypatch.setitem(TRUNKS, "narrow", partial)
    narrow, mlp = (next(e for e in entries("trunks") if e.name == n) for n in ("narrow", "mlp"))
    assert narrow.summary == mlp.summary
    assert narrow.arguments[0]._replace(default=mlp.arguments[0].default) == mlp.arguments[0]
    assert narrow.arguments[0].default == "(3,)"


def test_choices_of_flags_are_those_of_the_dicts():
    hints = typing.get_type_hints(ExportFlags)
    assert set(typing.get_args(hints["to"])) == set(EXPORTS)
    assert typing.get_args(typing.get_type_hints(EvaluateFlags)["split"]) == (*SPLITS, ALL)


def test_signing_needs_a_run_or_a_file(refused):
    for verb in ("sign", "verify"):
        for flags in ((), ("--run", "a", "--file", "b")):
            assert refused(verb, *flags, "--key", "k") == "give either --run DIR or --file FILE"


def help_of(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(verb, capsys):
    out = help_of(capsys, verb)
    assert f"usage: python -m mtljax.main {verb} " in out
    if verb == "export":
        assert "--to {stablehlo,onnx,safetensors}" in out


@pytest.mark.parametrize("verb", ["train", "compare", "group", "prepare", "data", "screen"])
def test_help_on_an_experiment_shows_its_fields_beside_the_flags_of_the_verb(verb, capsys):
    own = set(re.findall(r"--[\w-]+", help_of(capsys, verb))) - {"--no-quiet"}
    out = help_of(capsys, verb, "--experiment", "digits")
    assert own <= set(re.findall(r"--[\w-]+", out))
    assert "adamw:weight_decay=1e-2" in out


def test_help_without_an_experiment_tells_the_verbs(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)


def test_a_real_process_refuses_in_one_line(tmp_path):
    flags = ("--experiment", "digits", "--steps", "x", "--workdir", "run")
    status, out, err = finish(start(*flags, cache="off", cwd=tmp_path))
    assert status == 2
    assert out == ""
    assert err == "mtljax: --steps must be an integer, not 'x'\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (["list"], "experiments\n"),
        (
            ["--experiment", "digits", "--help"],
            "usage: python -m mtljax.main train [-h] [OPTIONS]\n",
        ),
    ],
)
def test_a_closed_pipe_is_no_traceback(arguments, first):
    with start(*arguments, cache="off") as process:
        assert process.stdout.readline().split() == first.split()
        process.stdout.close()
        assert process.stderr.read() == ""


def test_the_traceback_can_be_seen(monkeypatch):
    monkeypatch.setenv("MTLJAX_TRACEBACK", "1")
    with pytest.raises(ValueError, match="unknown experiment"):
        main(["--experiment", "digit"])
