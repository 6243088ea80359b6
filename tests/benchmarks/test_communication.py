"""Counts of communicated bytes, and memory of sharded states, in compiled programs."""

import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import communication  # noqa: E402
from hlo_collectives import Collective, collectives  # noqa: E402

HLO = """HloModule step, entry_computation_layout={()->f32[]}

%cut (whole: f32[16,4], at: s32[]) -> f32[2,4] {
  %whole = f32[16,4]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %zero = s32[] constant(0)
  %turned = f32[16,4]{0,1} copy(%whole)
  ROOT %part = f32[2,4]{1,0} dynamic-slice(%turned, %at, %zero), dynamic_slice_sizes={2,4}
}

ENTRY %main (x: f32[16,4], y: bf16[2,3], at: s32[]) -> f32[2,4] {
  %x = f32[16,4]{1,0} parameter(0)
  %y = bf16[2,3]{1,0} parameter(1)
  %at = s32[] parameter(2)
  %gathered = bf16[16,3]{1,0} all-gather(%y), replica_groups=[1,8]<=[8], dimensions={0}
  %both = (f32[16,4]{1,0}, /*index=1*/f32[5]{0}) all-reduce(%x), replica_groups={{0,1,2},{3,4,5}}
  %first = f32[16,4]{1,0} get-tuple-element(%both), index=0
  %second = f32[5]{0} get-tuple-element(%both), index=1
  %used = f32[5]{0} negate(%second)
  %alone = f32[7]{0} all-reduce(%used), replica_groups={{0},{1}}
  %small = f32[3]{0} reduce-scatter(%used), replica_groups=mesh['a'=4,'b'=2] {'b'}, dimensions={0}
  ROOT %result = f32[2,4]{1,0} fusion(%first, %at), kind=kLoop, calls=%cut
}
"""


def test_collectives_are_read_from_hlo():
    assert collectives(HLO) == [
        Collective("all-gather", (16, 3), 96, 8),
        Collective("reduce-scatter", (16, 4), 256, 3),  # each device keeps a slice
        Collective("all-reduce", (5,), 20, 3),
        Collective("reduce-scatter", (3,), 24, 2),
    ]


def test_a_ring_sends_each_byte_once_per_pass():
    sent = {kind: Collective(kind, (2,), 800, 4).sent for kind in ("all-gather", "all-reduce")}
    assert sent == {"all-gather": 600, "all-reduce": 1200}


@pytest.mark.parametrize("balancer", ["cagrad", pytest.param("ew", marks=pytest.mark.full)])
def test_rows_are_scattered_and_parameters_gathered_once(balancer):
    kernel, rows = 4 * 192 * 64, 1 if balancer == "ew" else 3
    options = {"size": 8, "batch": 8}
    trunk = "mlp:widths=(64,)"
    sharded = communication.measure(trunk, balancer, "fsdp:min_size=1000", 8, **options)
    assert sharded["all-gather"] == kernel
    assert sharded["reduce-scatter"] == rows * kernel
    assert sharded["all-reduce"] < 0.15 * kernel  # biases, heads, losses and the Gramian
    replicated = communication.measure(trunk, balancer, "replicated", 8, **options)
    assert rows * kernel < replicated["all-reduce"] < (rows + 0.15) * kernel
    assert replicated["all-gather"] == replicated["reduce-scatter"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("trunk", ["vit_b", "resnet50"])
def test_parameters_and_optimizer_need_a_sixth_of_the_memory_on_8_devices(trunk):
    memory = {}
    for sharding in ("replicated", "fsdp"):
        compiled, state = communication.compiled_step(trunk, "cagrad", sharding, 8, size=224)
        batch = 16 / 8 * 224 * 224 * 3 * 4  # images per device
        memory[sharding] = compiled.memory_analysis().argument_size_in_bytes - batch
    parameters = communication.size_in_bytes(state.params)
    assert memory["replicated"] == pytest.approx(3 * parameters, rel=0.01)  # Adam has two moments
    assert memory["fsdp"] <= memory["replicated"] / 6
    assert jax.device_count() == 8
