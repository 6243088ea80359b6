"""What a run folder holds can be read by others, and comes back as it was."""

import dataclasses
import json
import math

import pytest

from mtljax.config import Data, Experiment, to_json
from mtljax.runs.folder import RunFolder, check_folder, read_result
from mtljax.runs.records import TrainRecord
from mtljax.runs.result import RunResult
from mtljax.runs.selection import selection_score
from mtljax.tasks import Classification, Regression
from mtljax.utils.files import write_json

EXPERIMENT = Experiment(name="test", tasks=(Regression(name="size"),), data=Data(source="digits"))
RESULT = RunResult(
    experiment="test",
    best_step=3,
    validation={"size": {"mae": math.inf, "iou": [0.5, math.nan]}},
    test={"size": {"mae": math.nan, "rmse": 2.0}},
)


def strictly(text):
    """By a reader that takes nothing but JSON."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_what_is_not_finite_is_null_in_files_and_nan_when_read(tmp_path):
    record = TrainRecord(
        step=1,
        epoch=0.5,
        loss={"size": math.nan},
        grad_norm=-math.inf,
        skipped=1,
        examples_per_second=10.0,
        seconds=0.1,
    )
    with RunFolder(tmp_path / "run", EXPERIMENT) as folder:
        folder.append(record)
        folder.append(dataclasses.replace(record, step=2))
        folder.truncate_history(1)
        folder.finish(RESULT)
        (read,) = folder.history()
    assert (read.step, read.skipped) == (1, 1)
    assert math.isnan(read.loss["size"])
    assert math.isnan(read.grad_norm)
    strictly((tmp_path / "run" / "metrics.jsonl").read_text())
    assert strictly((tmp_path / "run" / "result.json").read_text())["test"]["size"]["mae"] is None

    result = read_result(tmp_path / "run")
    assert result.test["size"]["rmse"] == 2.0
    validation = result.validation["size"]
    assert [math.isnan(x) for x in (validation["mae"], *validation["iou"])] == [True, False, True]


def test_settings_that_are_none_stay_none_and_infinite_ones_can_go_on(tmp_path):
    experiment = dataclasses.replace(EXPERIMENT, clip_norm=math.inf)
    for _ in range(2):
        with RunFolder(tmp_path, experiment):
            pass
    assert strictly((tmp_path / "config.json").read_text())["clip_norm"] is None


def test_a_run_from_before_a_field_was_there_can_go_on_with_its_default(tmp_path):
    before = {k: x for k, x in to_json(EXPERIMENT).items() if k not in ("init", "init_part")}
    (tmp_path / "config.json").write_text(json.dumps(before))
    check_folder(tmp_path, EXPERIMENT)
    for other in ({"init": "elsewhere"}, {"init_part": "all"}):
        with pytest.raises(ValueError, match=f"holds a run with {next(iter(other))}="):
            check_folder(tmp_path, dataclasses.replace(EXPERIMENT, **other))


def test_a_tuple_is_written_as_a_list(tmp_path):
    write_json(tmp_path / "a.json", {"values": (1.5, math.nan, "NaN", True, None)})
    found = strictly((tmp_path / "a.json").read_text())
    assert found == {"values": [1.5, None, "NaN", True, None]}


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_the_score_of_a_checkpoint_is_always_a_number(loss):
    metrics = {"size": {"loss": loss, "mae": loss}}
    for select in ("loss", "size/mae"):
        experiment = dataclasses.replace(EXPERIMENT, select=select)
        assert 1e300 < selection_score(experiment, metrics) < math.inf


def test_long_fields_of_another_run_are_shortened(tmp_path):
    names = tuple(f"class {i}" for i in range(1000))
    of = lambda names: dataclasses.replace(
        EXPERIMENT, tasks=(Classification(name="size", class_names=names),)
    )
    with RunFolder(tmp_path / "run", of(names)):
        pass
    with pytest.raises(ValueError, match="holds a run with tasks.0.class_names=") as caught:
        check_folder(tmp_path / "run", of(names[::-1]))
    assert len(str(caught.value)) < 450 + len(str(tmp_path))
