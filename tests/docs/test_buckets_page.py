"""The page on run folders in buckets: its code runs, and its numbers are those of the program."""

import dataclasses
import re
from pathlib import Path

import fsspec
import pytest
from support.comparison import SMALL

import mtljax
from mtljax.runs import bucket_lock, staging

PAGE = (Path(__file__).parents[2] / "docs" / "buckets.md").read_text()


@pytest.mark.full
def test_the_code_shown_trains_a_run_in_a_bucket(tmp_path, monkeypatch):
    memory = fsspec.get_filesystem_class("memory")
    monkeypatch.setattr(memory, "store", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    small = dataclasses.replace(SMALL, steps=2)
    exec(code.replace("s3://", "memory://"), {"mtljax": mtljax, "experiment": small})
    names = {name.removeprefix("/my-bucket/runs/digits/") for name in memory.store}
    assert {"config.json", "metrics.jsonl", "checkpoints/2.tar", "result.json"} <= names


def test_the_times_are_those_of_the_program():
    numbers = re.findall(r"Every (\d+) seconds|every (\d+) seconds|for (\d+) seconds", PAGE)
    found = [int("".join(number)) for number in numbers]
    assert found == [staging.INTERVAL, bucket_lock.HEARTBEAT, bucket_lock.SILENCE]
    assert f"starts {bucket_lock.SILENCE:.0f} seconds later" in PAGE
