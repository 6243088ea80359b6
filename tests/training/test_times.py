"""Times and throughput of runs that several processes trained."""

import json
import time

import pytest
from support import small_run

from mtljax.runs.folder import RunFolder, read_result
from mtljax.runs.records import TrainRecord, processes, total_seconds
from mtljax.training.recorder import Recorder


def record(step, seconds, chunk_seconds, earlier=0.0):
    """A record of 10 steps of 8 examples, which took `chunk_seconds`."""
    return TrainRecord(
        step=step,
        epoch=0.0,
        loss={"a": 1.0, "b": 1.0},
        grad_norm=1.0,
        skipped=0,
        examples_per_second=80 / chunk_seconds,
        seconds=seconds,
        earlier_seconds=earlier,
    )


FIRST = (record(10, 1.0, 0.9), record(20, 1.5, 0.5))
SLOW_SECOND = (record(30, 5.0, 4.9, 1.5), record(40, 5.5, 0.5, 1.5))
"""Its first chunk takes longer than the first process ran."""
WITHOUT_FIELD = (record(30, 0.8, 0.7), record(40, 1.3, 0.5))
"""Of a version that did not record the time of earlier processes."""


def speed(records, tmp_path):
    with RunFolder(tmp_path / "run", small_run.EXPERIMENT) as folder:
        for each in records:
            folder.append(each)
        recorder = Recorder(small_run.EXPERIMENT, folder, train_size=80, step=40, quiet=True)
        found = recorder.speed()
        recorder.close()
    return found


@pytest.mark.parametrize(
    ("second", "total", "train"),
    [(SLOW_SECOND, 7.0, 6.8), (WITHOUT_FIELD, 2.8, 2.6), ((), 1.5, 1.4)],
)
def test_the_first_chunk_of_each_process_counts_as_time_but_not_as_speed(
    second, total, train, tmp_path
):
    records = [*FIRST, *second]
    assert len(processes(records)) == 1 + bool(second)
    assert total_seconds(records) == pytest.approx(total)
    found = speed(records, tmp_path)
    assert found.ms_per_step == pytest.approx(50)
    assert found.examples_per_second == pytest.approx(160)
    assert found.train_seconds == pytest.approx(train)


def test_three_processes_add_up_even_if_steps_were_taken_again():
    third = (record(30, 2.0, 1.9, 7.0), record(40, 2.5, 0.5, 7.0))  # from step 20 on
    assert total_seconds([*FIRST, *third]) == 9.5
    assert total_seconds([]) == 0


def train_lines(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "loss" in line]


def test_a_resumed_run_counts_the_time_of_all_its_processes(tmp_path):
    programs, start = small_run.make_programs(), time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        small_run.run(programs, [tmp_path], die_at=18)
    (*_, last) = train_lines(tmp_path)
    assert "earlier_seconds" not in last
    first = last["seconds"]
    time.sleep(1)  # between the processes
    between = time.perf_counter()
    small_run.run(programs, [tmp_path])
    second = time.perf_counter() - between
    seconds = read_result(tmp_path).seconds
    assert first < seconds <= first + second
    assert seconds < time.perf_counter() - start - 0.9
    assert [line.get("earlier_seconds") for line in train_lines(tmp_path)[-6:]] == [first] * 6
