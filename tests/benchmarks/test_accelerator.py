"""The benchmark on accelerators: operations, networks, plan and report; its programs once, tiny."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import accelerator  # noqa: E402
import accelerator_jax  # noqa: E402
import accelerator_table  # noqa: E402
import flops  # noqa: E402
from workloads import SMALL, WORKLOADS, parse_variant  # noqa: E402


def test_products_convolutions_and_loops_are_counted_by_hand():
    matrix, image = jnp.ones((3, 5)), jnp.ones((2, 8, 8, 6))
    grouped = jnp.ones((3, 3, 2, 12))  # three groups

    def function(matrix, image):
        step = lambda carry, _: (carry, matrix @ matrix.T)
        _, products = jax.lax.scan(step, 0, length=7)
        strided = jax.lax.conv_general_dilated(
            image, grouped, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=3,
        )  # fmt: skip
        return products.sum() + strided.sum()

    expected = 7 * 2 * 3 * 5 * 3 + 2 * (2 * 4 * 4 * 12) * (3 * 3 * 2)
    assert flops.count(jax.jit(function), matrix, image) == expected


def test_a_transposed_convolution_multiplies_no_zeros():
    kernel = jnp.ones((3, 3, 4, 4))
    conv = lambda x: jax.lax.conv_general_dilated(
        x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    image = jnp.ones((1, 8, 8, 4))
    forward = flops.count(conv, image)
    assert flops.count(lambda g: jax.vjp(conv, image)[1](g), jnp.ones((1, 4, 4, 4))) == 2 * forward


@pytest.mark.full
@pytest.mark.parametrize(
    ("workload", "multiplications"), [("vit", 17.56e9), ("resnet50", 4.09e9), ("celeba", 1.81e9)]
)
def test_operations_are_those_that_torchvision_gives_for_the_networks(workload, multiplications):
    network = dataclasses.replace(WORKLOADS[workload], shape=(1, 224, 224), classes=(1000,))
    assert accelerator_jax.train_flops(network) / 6 == pytest.approx(multiplications, rel=0.01)


@pytest.mark.full
@pytest.mark.parametrize("workload", WORKLOADS)
def test_pytorch_networks_have_the_parameters_and_operations_of_ours(workload):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchjd")
    from accelerator_torch import Network
    from torch.utils.flop_counter import FlopCounterMode

    shape = jax.ShapeDtypeStruct((2, *WORKLOADS[workload].shape[1:], 3), jnp.float32)
    model, _ = accelerator_jax.network(WORKLOADS[workload])
    init = lambda key, x: model.init(key, x, train=False)
    ours = jax.tree.leaves(jax.eval_shape(init, jax.random.key(0), shape)["params"])
    with torch.device("meta"):
        theirs = Network(WORKLOADS[workload])
        image = torch.zeros(1, 3, *WORKLOADS[workload].shape[1:])
        with FlopCounterMode(display=False) as counter:
            features = theirs.features(image)
            size = [theirs.size] if theirs.is_dense else []
            for head in theirs.heads:
                head(*features, *size)
    assert sum(leaf.size for leaf in ours) == sum(p.numel() for p in theirs.parameters())
    # Theirs resizes without products.
    operations = accelerator_jax.train_flops(WORKLOADS[workload]) / 3
    assert counter.get_total_flops() == pytest.approx(operations, rel=0.01)


def test_variants_are_a_name_and_options():
    assert parse_variant("pcgrad:level=features,tasks=3") == (
        "pcgrad",
        {"level": "features", "tasks": 3},
    )
    assert parse_variant("ew:compile") == ("ew", {"compile": True})


def run(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["accelerator.py", *map(str, flags)])
    accelerator.main()


def test_whatever_the_budget_does_not_allow_is_named(monkeypatch, tmp_path, capsys):
    run(monkeypatch, "--budget", 0, "--json", tmp_path / "result.json")
    result = json.loads((tmp_path / "result.json").read_text())
    planned = [(*part[:2], variant) for part in accelerator.PLAN for variant in part[2]]
    missing = [(row["workload"], row["side"], row["variant"]) for row in result["not_measured"]]
    assert missing == planned
    assert "vit mtljax ew: the time budget was spent" in capsys.readouterr().out


def test_a_library_that_is_missing_or_too_slow_is_a_reason_and_no_error(tmp_path):
    program = 'print(\'{"variant": "ew"}\', flush=True); REST'
    with (tmp_path / "log").open("w") as log:
        run = lambda rest, seconds: accelerator.run_process(
            [sys.executable, "-c", program.replace("REST", rest)], seconds, log
        )
        assert run("import no_such_library", 60) == (
            [{"variant": "ew"}],
            "ModuleNotFoundError: No module named 'no_such_library'",
        )
        rows, reason = run("import time; time.sleep(600)", 5)
    assert reason == "its process was ended after 5 s"
    assert "no_such_library" in (tmp_path / "log").read_text()


def row(workload, side, variant, milliseconds, **other):
    speed = {"milliseconds": milliseconds, "spread": [milliseconds, 1.1 * milliseconds]}
    return {
        "workload": workload,
        "side": side,
        "variant": variant,
        "images_per_second": 128e3 / milliseconds,
        "compile_seconds": 61.0,
        "peak_bytes": 2**34,
        "parameters": 10,
        "device": "NVIDIA H200",
        "version": "1",
    } | speed | other  # fmt: skip


def test_report_gives_utilisation_and_verdicts_in_80_columns():
    rows = [
        row("vit", "mtljax", "ew", 25.6, flops_per_image=0.0990e12),
        row("vit", "torch", "ew:compile", 24.0),
        row("vit", "mtljax", "pcgrad:jacobian=gramian", 40.96, peak_bytes=1.5 * 2**34),
        row("vit", "torch", "loop", 90.0, parameters=11),
    ]
    missing = [{"workload": "loop", "side": "mtljax", "variant": "jpeg", "error": "no time"}]
    result = {"rows": rows, "not_measured": missing, "versions": [], "devices": []}
    lines = accelerator_table.report(result | {"date": "today", "small": False}).splitlines()
    assert max(map(len, lines)) <= 80
    find = lambda text: next(line for line in lines if text in line)
    # 5,000 images/s of 0.099 TFLOP each are 495 of 990 TFLOP/s.
    assert find("vit      mtljax ew ").split()[3:] == ["5000", "25.6", "10%", "50.0%", "61", "16.0"]
    assert find("images/s, ViT").endswith("reached")
    assert "NOT" not in find("images/s, ViT")
    assert find("`ew` over torch.compile").split()[-5:] == ["0.94", ">=", "1", "NOT", "reached"]
    assert "1.50" in find("memory of gramian")
    assert "the networks differ" in find("not comparable")
    assert find("loop mtljax jpeg").strip() == "loop mtljax jpeg: no time"


@pytest.mark.slow
@pytest.mark.parametrize("workload", [*SMALL, "loop", "conformance"])
def test_every_workload_runs_in_tiny_shapes(monkeypatch, tmp_path, workload):
    path = tmp_path / "result.json"
    flags = "--small", "--seconds", 0.1, "--sides", "mtljax", "--limit", 1200, "--json", path
    run(monkeypatch, "--workloads", workload, *flags)
    result = json.loads(path.read_text())
    assert result["not_measured"] == []
    assert result["rows"]
