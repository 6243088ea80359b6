"""Attacks: within their bounds, uphill, and what remains of every task's metrics under them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.cli import SMALL

from mtljax.balancing import BALANCERS
from mtljax.main import main
from mtljax.models import FUSIONS, TRUNKS, build
from mtljax.step.attacks import ATTACKS, Attack, attack_batch, fgsm, pgd
from mtljax.step.state import create_state
from mtljax.step.train_step import make_train_step
from mtljax.tasks import Classification, Regression

KEYS = jax.random.split(jax.random.key(0), 5)
IMAGES = jax.random.uniform(jax.random.key(1), (5, 4, 4, 1), minval=2.0, maxval=6.0)
MADE = {"fgsm": fgsm(0.1), "pgd": pgd(0.1), "pgd from the image": pgd(0.1, random=False)}


def over(attack, low=0.0, high=8.0):
    return Attack(attack.eps, attack.steps, attack.size, attack.random, low, high)


@pytest.mark.parametrize("attack", MADE.values(), ids=MADE)
def test_a_linear_loss_is_raised_as_far_as_it_can_be(attack):
    weights = jax.random.normal(jax.random.key(2), IMAGES.shape)
    changed = over(attack)(lambda image: (weights * image).sum(), IMAGES, KEYS)
    np.testing.assert_allclose(changed, IMAGES + 0.8 * jnp.sign(weights), rtol=1e-6)


@pytest.mark.parametrize("attack", MADE.values(), ids=MADE)
def test_no_pixel_is_changed_more_than_eps_or_leaves_black_and_white(attack):
    image = IMAGES * 1.6 - 2.5  # some are beyond black, some nearly white
    loss = lambda x: (jnp.sin(40 * x) * x).sum()
    changed = over(attack)(loss, image, KEYS)
    assert float(jnp.abs(changed - image).max()) <= 0.8 * (1 + 1e-6)
    inside = (image >= 0) & (image <= 8)
    assert (jnp.where(inside, changed, 1.0) >= 0).all()
    assert (jnp.where(inside, changed, 1.0) <= 8).all()
    assert not (changed == image).all()


def test_nothing_changes_by_nothing():
    changed = over(pgd(0.0))(lambda x: (x**2).sum(), IMAGES, KEYS)
    np.testing.assert_array_equal(changed, IMAGES)


def test_integer_images_are_attacked_too():
    image = jnp.full((5, 4, 4, 1), 100, jnp.uint8)
    changed = over(fgsm(0.1), 0.0, 255.0)(lambda x: x.sum(), image, KEYS)
    np.testing.assert_allclose(changed, 125.5)


def test_several_steps_find_a_higher_loss_than_one():
    key = jax.random.key(3)
    a, b = jax.random.normal(key, (16, 64)), jax.random.normal(key, (64,))
    loss = lambda x: (jax.nn.relu(x.reshape(5, 16) @ a) @ b).sum()
    values = {name: float(loss(over(attack)(loss, IMAGES, KEYS))) for name, attack in MADE.items()}
    assert float(loss(IMAGES)) < values["fgsm"] < values["pgd from the image"]


def test_what_is_absent_adds_nothing():
    tasks = (Regression(name="value"),)
    label = jnp.arange(5.0)
    batch = lambda present: {
        "image": IMAGES,
        "labels": {"value": label},
        "present": {"value": present},
    }
    outputs = lambda image: {"value": image.mean((1, 2, 3))}
    some = jnp.array([True, True, False, True, False])
    everywhere = attack_batch(fgsm(0.1), tasks, outputs, batch(jnp.ones(5, bool)), KEYS)["image"]
    found = attack_batch(fgsm(0.1), tasks, outputs, batch(some), KEYS)["image"]
    np.testing.assert_array_equal(found[some], everywhere[some])
    np.testing.assert_array_equal(found[~some], jnp.clip(IMAGES, 0, 1e9)[~some])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: fgsm(1.5), r"eps must be in \[0, 1\].*not 1.5"),
        (lambda: fgsm(-0.1), r"not -0.1"),
        (lambda: pgd(0.1, steps=0), "needs steps >= 1, not 0"),
    ],
)
def test_what_is_no_attack(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()


def problem():
    tasks = (Classification(name="digit", num_classes=3), Regression(name="value"))
    model = build(TRUNKS["mlp"](widths=(8,)), FUSIONS["none"], tasks)
    labels = {"digit": jnp.arange(8) % 3, "value": jnp.arange(8.0)}
    present = {"digit": jnp.arange(8) != 2, "value": jnp.arange(8) != 5}
    image = jax.random.uniform(jax.random.key(4), (8, 4, 4, 1))
    parts = model, tasks, BALANCERS["ew"](), optax.sgd(0.1)
    return parts, {"image": image, "labels": labels, "present": present}


def params_after(step, state, batch):
    return jax.tree.leaves(step(state, batch)[0].params)


def test_adversarial_training_learns_from_attacked_images():
    parts, batch = problem()
    state = create_state(jax.random.key(0), *parts, batch)
    outputs = lambda image: parts[0].apply(
        {"params": state.params, **state.model_state}, image, train=False
    )
    by_hand = attack_batch(
        fgsm(0.1), parts[1], outputs, batch, jax.random.split(jax.random.key(9), 8)
    )
    expected = params_after(jax.jit(make_train_step(*parts)), state, by_hand)
    plain = params_after(jax.jit(make_train_step(*parts)), state, batch)
    found = params_after(jax.jit(make_train_step(*parts, attack=fgsm(0.1))), state, batch)
    for leaf, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(leaf, other, atol=1e-6)
    assert any(np.abs(x - y).max() > 1e-3 for x, y in zip(found, plain, strict=True))


@pytest.mark.full
def test_adversarial_training_is_the_same_on_several_devices():
    parts, batch = problem()
    state = create_state(jax.random.key(0), *parts, batch)
    one = params_after(jax.jit(make_train_step(*parts, attack=pgd(0.1, steps=2))), state, batch)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spread, whole = jax.P("batch"), jax.P()
    step = make_train_step(*parts, attack=pgd(0.1, steps=2), axis_name="batch")
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(whole, spread), out_specs=whole, check_vma=False
    )
    for leaf, other in zip(params_after(jax.jit(mapped), state, batch), one, strict=True):
        np.testing.assert_allclose(leaf, other, atol=1e-6)


def evaluated(run, *flags):
    assert main(["evaluate", "--run", str(run), *flags]) == 0
    (name,) = ("fgsm" if "fgsm" in flags else "pgd",)
    return json.loads((run / f"evaluation-test-{name}.json").read_text())


def test_evaluate_says_what_remains_under_attack(trained_run, tmp_path, capsys):
    use = ["evaluate", "--run", str(trained_run), "--attack", "pgd:steps=3", "--eps", "0.1"]
    assert main([*use, "--output", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["attack"] == {"attack": "pgd:steps=3", "eps": 0.1}
    for task in ("digit", "value"):
        clean, own, every = (found[kind][task]["loss"] for kind in ("metrics", "own", "all"))
        assert clean < every <= own * (1 + 1e-3)
    assert "own attacked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--attack", "pdg"), "did you mean 'pgd'"),
        (("--attack", "pgd:eps=1"), "eps"),
        (("--attack", "fgsm", "--eps", "2"), "eps must be in [0, 1]"),
    ],
)
def test_attacks_that_are_none_are_refused(flags, reason, trained_run, capsys):
    assert main(["evaluate", "--run", str(trained_run), *flags]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.slow
def test_adversarial_training_withstands_attacks(tmp_path):
    flags = [*SMALL, "--trunk", "mlp:widths=(128,)", "--steps", "600", "--learning-rate", "3e-3"]
    accuracy = {}
    for name, extra in (("plain", ()), ("hard", ("--adversarial", "pgd:eps=0.1,steps=3"))):
        run = tmp_path / name
        assert main([*flags, *extra, "--workdir", str(run), "--quiet"]) == 0
        found = evaluated(run, "--attack", "pgd", "--eps", "0.1")
        accuracy[name] = found["metrics"]["digit"]["accuracy"], found["own"]["digit"]["accuracy"]
    assert accuracy["hard"][1] > accuracy["plain"][1] + 0.15, accuracy
    assert accuracy["hard"][0] > 0.85, accuracy


def test_all_attacks_are_listed(capsys):
    assert main(["list", "attacks"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ATTACKS)
