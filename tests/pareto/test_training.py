"""The rays of a front in one program: the same runs as one after the other."""

import numpy as np
import pytest
from support.comparison import SMALL

from mtljax.balancing.rays import rays
from mtljax.comparison.plan import plan
from mtljax.comparison.running import run_members
from mtljax.config.balancers import split_preference, with_preference
from mtljax.runs.folder import read_result
from mtljax.runs.joint_checkpoints import group_names, joint_step
from mtljax.training.loop import train_group
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up

RAYS = rays(2, 3)


def members(method):
    """The methods of a plan for the rays, without baselines."""
    methods = plan(SMALL, balancers=[with_preference(method, ray) for ray in RAYS])
    return [m for m in methods if m.kind == "method"]


def results(methods, workdir):
    return [read_result(m.candidates[0].folder(workdir, 0)) for m in methods]


@pytest.mark.full
def test_rays_train_side_by_side_as_they_do_in_turn(tmp_path):
    methods = members("ferero")
    assert len({m.candidates[0].program for m in methods}) == 1
    found = []
    for together in ("yes", "no"):
        workdir = tmp_path / together
        options = {"devices": 1, "together": together, "quiet": True}
        assert not run_members(methods, [0], workdir, **options)
        found.append(results(methods, workdir))
    stacked, single = found
    assert [r.together for r in stacked] == [3] * 3
    assert [r.together for r in single] == [1] * 3
    for a, b in zip(stacked, single, strict=True):
        assert a.best_step == b.best_step
        for task in SMALL.tasks:
            for name in ("loss", task.main_metric):
                np.testing.assert_allclose(
                    a.test[task.name][name], b.test[task.name][name], rtol=1e-4
                )
    # They are different networks.
    assert len({r.test["digit"]["loss"] for r in stacked}) == 3


def test_coupled_rays_train_together_or_not_at_all(tmp_path):
    methods = members("hypervolume:warmup=5")
    options = {"devices": 1, "quiet": True}
    failures = run_members(methods, [0], tmp_path / "apart", together="no", **options)
    assert "leave out --together no" in failures[0].reason
    methods = members("hypervolume:warmup=5,rays=3")
    assert not run_members(methods, [0], tmp_path / "together", **options)
    together = results(methods, tmp_path / "together")
    assert [r.together for r in together] == [3] * 3
    rest = members("hypervolume:warmup=5,rays=3")[:2]
    failures = run_members(rest, [0], tmp_path / "rest", **options)
    assert "trains 3 networks side by side, not 2" in failures[0].reason
    alone = members("hypervolume:warmup=5")[:1]
    assert not run_members(alone, [0], tmp_path / "alone", **options)
    loss = lambda result: result.test["digit"]["loss"]
    assert loss(results(alone, tmp_path / "alone")[0]) != pytest.approx(loss(together[0]), rel=1e-3)


def test_interrupted_rays_go_on_bit_for_bit(tmp_path):
    methods = members("hypervolume:warmup=5")
    experiments = [m.candidates[0].member(0) for m in methods]
    programs = Programs(set_up(experiments[0], devices=1))

    def run(workdir, die_at=None):
        def progress(step):
            if step == die_at:
                raise KeyboardInterrupt

        folders = [m.candidates[0].folder(workdir, 0) for m in methods]
        train_group(experiments, folders, programs, quiet=True, report=False, progress=progress)

    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", die_at=15)
    first = methods[0].candidates[0].folder(tmp_path / "parts", 0)
    folders = [m.candidates[0].folder(tmp_path / "parts", 0) for m in methods]
    assert joint_step(first, group_names(folders, [0] * 3)) == 10
    assert joint_step(first, group_names(folders[:2], [0] * 2)) == 0
    run(tmp_path / "parts")
    for a, b in zip(*(results(methods, tmp_path / n) for n in ("whole", "parts")), strict=True):
        assert a.test == b.test


def test_a_preference_is_written_behind_any_balancer_and_found_again():
    for text in ("ew", "cagrad:c=0.4", "uw+cagrad:c=0.4", "nash_mtl@every:period=10"):
        method, preference = split_preference(with_preference(text, (0.5, 1.5)))
        assert method == text
        assert preference == (0.5, 1.5)
    assert split_preference("upgrad@preferred:1,2@every:10")[1] is None
    assert split_preference("ew") == ("ew", None)
