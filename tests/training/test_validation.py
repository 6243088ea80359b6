"""Training for a search: validation only, observed, resumable."""

import pytest
from support.small_run import EXPERIMENT, lines, make_programs, run

from mtljax.runs.folder import RESULT, read_result
from mtljax.training.validation import train_on_validation


@pytest.fixture(scope="module")
def programs():
    return make_programs()


def test_test_split_is_not_evaluated_until_the_run_is_finished(programs, tmp_path, monkeypatch):
    asked = []
    metrics = type(programs.test).metrics
    monkeypatch.setattr(
        type(programs.test),
        "metrics",
        lambda self, state: asked.append(self is programs.test) or metrics(self, state),
    )
    evaluations = train_on_validation(programs.setup.experiment, tmp_path / "a", programs)
    assert [record.step for record in evaluations] == list(range(4, 29, 4))
    assert not any(asked)
    assert not (tmp_path / "a" / RESULT).exists()
    # `train_group` in the same folder takes no further step: the run is that of an ordinary one.
    run(programs, [tmp_path / "a"])
    run(programs, [tmp_path / "b"])
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    results = [read_result(tmp_path / name) for name in "ab"]
    assert results[0].test == results[1].test
    best = min(evaluations, key=lambda record: record.score)
    assert results[0].best_step == best.step
    assert any(asked)


def test_observer_can_end_a_run_and_sees_its_earlier_evaluations(programs, tmp_path):
    class Enough(Exception):
        pass

    def stop_at(step):
        def observe(evaluations):
            seen.append([record.step for record in evaluations])
            if evaluations and evaluations[-1].step == step:
                raise Enough

        return observe

    seen = []
    with pytest.raises(Enough):
        train_on_validation(EXPERIMENT, tmp_path / "run", programs, observe=stop_at(8))
    assert seen == [[], [4], [4, 8]]
    seen.clear()
    resumed = train_on_validation(EXPERIMENT, tmp_path / "run", programs, observe=stop_at(None))
    assert seen[0] == [4, 8]
    undisturbed = train_on_validation(EXPERIMENT, tmp_path / "other", programs)
    assert resumed == undisturbed
