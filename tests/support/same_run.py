"""Comparison of two run folders, without what the clock says."""

import json

from mtljax.runs.checkpoints import Checkpoints


def states(folder):
    """{step: everything in its checkpoint}."""
    checkpoints = Checkpoints(folder, read_only=True)
    steps = {checkpoints.latest(), checkpoints.best()}
    found = {step: checkpoints.read(step) for step in steps}
    checkpoints.close()
    return found


def lines(folder):
    """The lines of metrics.jsonl without what the clock says."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = ("seconds", "earlier_seconds", "examples_per_second")
    return [{k: v for k, v in line.items() if k not in clock} for line in found]


def outcome(folder):
    result = json.loads((folder / "result.json").read_text())
    for clock in ("seconds", "train_seconds", "ms_per_step", "examples_per_second"):
        del result[clock]
    for cost in ("compile_seconds", "memory_bytes"):  # unknown to a process that took no step
        result.pop(cost, None)
    return result


def assert_the_same_run(folder, undisturbed):
    assert lines(folder) == lines(undisturbed)
    assert outcome(folder) == outcome(undisturbed)
    saved, others = ({p.name for p in (f / "checkpoints").iterdir()} for f in (folder, undisturbed))
    assert saved == others
    ours, theirs = states(folder), states(undisturbed)
    assert ours.keys() == theirs.keys()
    for step in ours:
        assert ours[step].keys() == theirs[step].keys()
        for name, leaf in ours[step].items():
            assert leaf.dtype == theirs[step][name].dtype
            assert leaf.tobytes() == theirs[step][name].tobytes(), name
