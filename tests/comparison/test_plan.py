"""Which runs a comparison is made of."""

import dataclasses
import importlib

import pytest
from support.comparison import EXPERIMENT

from mtljax.balancing import cagrad
from mtljax.comparison.plan import plan, single_task
from mtljax.config.overrides import with_override
from mtljax.models import HardSharing, mlp


def names(**asked):
    return [method.name for method in plan(EXPERIMENT, **asked)]


def test_baselines_come_first_and_have_the_trunk_and_budget_of_the_methods():
    methods = plan(EXPERIMENT, balancers=("uw", "pcgrad"))
    assert [method.name for method in methods] == ["STL digit", "STL value", "uw", "pcgrad"]
    single, method = methods[0].candidates[0].experiment, methods[2].candidates[0].experiment
    assert (single.balancer, single.fusion, len(single.tasks)) == ("ew", "none", 1)
    for field in dataclasses.fields(single):
        if field.name not in ("balancer", "tasks", "data"):
            assert getattr(single, field.name) == getattr(method, field.name)


def test_conditioned_networks_have_unconditioned_baselines():
    methods = plan(EXPERIMENT, vary=("condition=none,palora:rank=2",))
    found = {method.name: method.candidates[0] for method in methods}
    assert found["condition palora:rank=2"].experiment.condition == "palora:rank=2"
    for task in ("digit", "value"):
        with_it, without = (found[f"STL {task}, condition {c}"] for c in ("palora:rank=2", "none"))
        assert with_it == without  # trained once
    with pytest.raises(ValueError, match="needs a balancer that reads the preference"):
        plan(dataclasses.replace(EXPERIMENT, condition="palora"), balancers=("ew", "uw"))


def test_names_say_what_differs():
    assert names() == ["STL digit", "STL value", "ew"]
    assert names(fusions=("none", "attention"))[2:] == ["fusion none", "fusion attention"]
    assert names(fusions=("none", "mtan"), balancers=("ew", "uw"))[2:4] == [
        "fusion none, ew",
        "fusion none, uw",
    ]
    both = names(trunks=("mlp:widths=(4,)", "mlp:widths=(8,)"))
    assert both[:2] == ["STL digit, trunk mlp:widths=(4,)", "STL value, trunk mlp:widths=(4,)"]
    assert both[-1] == "trunk mlp:widths=(8,)"


def test_a_baseline_is_chosen_by_its_own_metric_or_its_loss():
    own = dataclasses.replace(EXPERIMENT, select="digit/accuracy")
    assert single_task(own, "digit").select == "digit/accuracy"
    assert single_task(own, "value").select == "loss"


def test_every_method_and_baseline_gets_every_point_of_the_grid():
    grid = ("learning-rate=1e-3,1e-2", "optimizer=adam,adamw:weight_decay=0.1,b1=0.8")
    with pytest.raises(ValueError, match="b1=0.8"):
        plan(EXPERIMENT, grid=grid)
    grid = ("learning-rate=1e-3,1e-2", "data.batch_size=16,32")
    for method in plan(EXPERIMENT, grid=grid):
        found = [
            (c.experiment.learning_rate, c.experiment.data.batch_size) for c in method.candidates
        ]
        assert found == [(1e-3, 16), (1e-3, 32), (1e-2, 16), (1e-2, 32)]
        assert method.candidates[1].settings == "learning_rate=1e-3, data.batch_size=32"


def test_any_field_can_be_varied_for_methods_and_their_baselines():
    asked = {"vary": ("ema=none,0.9", "data.batch-size=8,16"), "balancers": ("ew", "uw")}
    methods = plan(EXPERIMENT, **asked)
    assert len(methods) == 4 * (2 + 2)
    of = lambda kind: [method for method in methods if method.kind == kind]
    assert of("stl")[0].name == "STL digit, ema none, data.batch_size 8"
    assert of("method")[-1].name == "ema 0.9, data.batch_size 16, uw"
    for method in methods:
        made = method.candidates[0].experiment
        told = f"ema {str(made.ema).lower()}, data.batch_size {made.data.batch_size}"
        assert told in method.name
        assert method.baseline == f"STL, {told}"
    assert names(vary=("ema=0.5",)) == ["STL digit, ema 0.5", "STL value, ema 0.5", "ema 0.5"]


def test_what_starts_from_random_weights_is_not_held_back_as_fine_tuning_is():
    tuned = {"freeze": ("trunk_0",), "freeze_statistics": True, "layer_decay": 0.8, "l2_sp": 0.1}
    fine = dataclasses.replace(EXPERIMENT, init="runs/a", unfreeze_every=3, **tuned)
    *_, scratch, started = plan(fine, vary=("init=none,runs/b", "learning_rate=0.2"))
    assert started.candidates[0].experiment == dataclasses.replace(
        fine, init="runs/b", learning_rate=0.2
    )
    assert scratch.name == "init none, learning_rate 0.2"
    assert scratch.candidates[0].experiment == dataclasses.replace(EXPERIMENT, learning_rate=0.2)
    *_, method = plan(fine, grid=("init=None,runs/a",))
    assert [candidate.experiment for candidate in method.candidates] == [EXPERIMENT, fine]


def test_folders_are_those_of_the_experiment_whatever_else_is_compared(tmp_path):
    alone = {m.name: m.candidates[0].folder(tmp_path, 3) for m in plan(EXPERIMENT)}
    more = {
        m.name: m.candidates[0].folder(tmp_path, 3)
        for m in plan(EXPERIMENT, balancers=("uw", "ew", "ew@preferred:1,2"))
    }
    assert alone.items() <= more.items()
    assert len(set(more.values())) == len(more)
    changed = dataclasses.replace(EXPERIMENT, steps=7)
    assert plan(changed)[-1].candidates[0].folder(tmp_path, 3) not in more.values()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"balancers": ("uwe",)}, "unknown balancer 'uwe'; did you mean 'uw'?"),
        ({"balancers": ("uw", "uw")}, "method 'uw' is listed twice"),
        ({"balancers": ("uw+mgda", "uw + mgda")}, "'uw+mgda' and 'uw + mgda' are the same"),
        ({"grid": ("learning-rate",)}, "--grid 'learning-rate' is not field=value,value"),
        ({"grid": ("optimizer.learning-rate=1e-3",)}, "did you mean 'learning_rate'?"),
        ({"grid": ("learning-rate=fast",)}, "learning_rate must be a number, not 'fast'"),
        ({"grid": ("seed=1,2",)}, "--grid: there is no field 'seed'"),
        ({"grid": ("steps=1", "steps=2")}, "--grid has steps twice"),
        ({"vary": ("init",)}, "--vary 'init' is not field=value,value"),
        ({"vary": ("steps=few,2",)}, "--vary: steps must be an integer, not 'few'"),
        (
            {"vary": ("trunk=cnn,rnn",)},
            "--vary cannot have trunk: its values are set by --trunks",
        ),
        (
            {"vary": ("steps=1,2",), "grid": ("steps=1,2",)},
            "--vary cannot have steps: its values are set by --grid",
        ),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(asked, words):
    with pytest.raises(ValueError, match=".") as error:
        plan(EXPERIMENT, **asked)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_field_inside_a_field_is_changed_in_a_copy():
    changed = with_override(EXPERIMENT, "data.batch_size", "8", "--grid")
    assert (changed.data.batch_size, EXPERIMENT.data.batch_size) == (8, 64)


def test_compare_takes_objects_in_place_of_their_text(monkeypatch, tmp_path):
    module = importlib.import_module("mtljax.comparison.compare")
    calls = []
    monkeypatch.setattr(module, "plan", lambda experiment, **asked: calls.append(asked) or 1 / 0)
    objects = {"balancers": [cagrad(c=0.4), "ew"], "trunks": [mlp((8,))], "fusions": [HardSharing]}
    with pytest.raises(ZeroDivisionError):
        module.compare(EXPERIMENT, tmp_path / "new", **objects)
    texts = {key: calls[0][key] for key in objects}
    assert texts == {
        "balancers": ["cagrad:c=0.4", "ew"],
        "trunks": ["mlp:widths=(8,)"],
        "fusions": ["none"],
    }
