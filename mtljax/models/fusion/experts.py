"""Experts and gates for mixtures (MMoE, DSelect-k) and layered experts (CGC, PLE)."""

import re

import flax.linen as nn
from jaxtyping import Array, Float

from mtljax.models.fusion.base import Features, Fusion, run_stage
from mtljax.models.layers import global_average_pool
from mtljax.models.partition import TASK_PREFIX
from mtljax.models.trunks.base import Activations, features_of, weighted_sum

GateInputs = tuple[list[Activations], Float[Array, "B F"] | None]
"""Values that a gate mixes, and the summary that it reads; None for a single value."""


class SoftmaxGate(nn.Module):
    """softmax(W x): weight of each expert, per example."""

    count: int
    """Number of experts."""

    @nn.compact
    def __call__(self, summary: Float[Array, "B F"]) -> Float[Array, "B N"]:
        gate = nn.softmax(nn.Dense(self.count)(summary))
        self.sow("intermediates", "gate", gate)
        return gate


def summarize(x: Activations, is_image: bool) -> Float[Array, "B F"]:
    """Input of a gate: features averaged over space, or all pixels of the image."""
    features = features_of(x)
    return features.reshape(features.shape[0], -1) if is_image else global_average_pool(features)


def apply_gate(inputs: GateInputs, name: str) -> Activations:
    """Mixes values with a `SoftmaxGate` called `name`; returns a single value unchanged."""
    parts, summary = inputs
    if summary is None:
        return parts[0]
    return weighted_sum(SoftmaxGate(len(parts), name=name)(summary), parts)


class Mixture(Fusion):
    """Shared lower stages, copies of the upper stages as experts, and one gate per task.

    Experts are shared, gates are task-specific. The representation for `level="features"` is the
    outputs of the experts and of the lower stages.

    Attributes:
      experts: Number of experts.
      expert_stages: Number of last stages of the trunk that form an expert.
    """

    experts: int = 4
    expert_stages: int = 1

    @nn.nowrap
    def stage_of(self, module: str) -> int | None:
        match = re.fullmatch(r"expert_\d+_(\d+)", module)
        first = len(self.trunk) - self.expert_stages
        return first + int(match[1]) if match else super().stage_of(module)

    def gate(self, task: str) -> nn.Module:
        """Gate of a task, `summary -> weights [N] or [B, N]`, named `task_<name>`."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> dict[str, Features]:
        first = first_expert_stage(self, self.expert_stages)
        below = (image, *self.run_stages(self.trunk[:first], image, train))
        runs = []
        for n in range(self.experts):
            copies = [
                self.copy_stage(first + i, f"expert_{n}_{i}") for i in range(self.expert_stages)
            ]
            runs.append([features_of(x) for x in self.run_stages(copies, below[-1], train)])
        lower = tuple(features_of(x) for x in below[1:])
        lower, runs, summary = self.represent((lower, runs, summarize(below[-1], first == 0)))
        fused = {}
        for task in self.tasks:
            weights = self.gate(task)(summary)
            mixed = [weighted_sum(weights, level) for level in zip(*runs, strict=True)]
            fused[task] = (*lower, *mixed)[-self.taps :]
        return fused


class Layered(Fusion):
    """Levels of shared and task-specific experts with gates between them; see `CGC` and `PLE`.

    Attributes:
      shared_experts: Number of experts for all tasks, per level.
      task_experts: Number of additional experts per task and level.
    """

    shared_experts: int = 2
    task_experts: int = 1

    @nn.nowrap
    def stage_of(self, module: str) -> int | None:
        if re.fullmatch(rf"{TASK_PREFIX}[^/]+/expert_\d+", module):
            return len(self.trunk) - 1
        match = re.fullmatch(r"[^/]+_expert_(\d+)_\d+", module)
        return int(match[1]) if match else super().stage_of(module)

    def extract(self, image: Array, train: bool, levels: int) -> dict[str, Features]:
        """Features of each task, with the last `levels` stages as levels of experts."""
        first = first_expert_stage(self, levels)
        below = (image, *self.run_stages(self.trunk[:first], image, train))
        shared_input, task_inputs = below[-1], dict.fromkeys(self.tasks, below[-1])
        lower = {task: [features_of(x) for x in below[1:]] for task in self.tasks}
        gate_inputs: dict[str, GateInputs] = {t: ([x], None) for t, x in task_inputs.items()}
        for level in range(levels - 1):
            is_image, stage = first + level == 0, first + level
            if level:
                gates = gate_inputs.items()
                task_inputs = {t: apply_gate(x, name=f"{t}_gate_{level - 1}") for t, x in gates}
                for task, x in task_inputs.items():
                    lower[task].append(features_of(x))
            shared = self.run_copies("shared", stage, self.shared_experts, shared_input, train)
            private = {
                task: self.run_copies(task, stage, self.task_experts, x, train)
                for task, x in task_inputs.items()
            }
            experts = [*shared, *(x for outputs in private.values() for x in outputs)]
            summary = summarize(shared_input, is_image)
            shared_input = apply_gate((experts, summary), name=f"shared_gate_{level}")
            gate_inputs = {
                task: ([*private[task], *shared], summarize(x, is_image))
                for task, x in task_inputs.items()
            }
        last = len(self.trunk) - 1
        shared = self.run_copies("shared", last, self.shared_experts, shared_input, train)
        gate_inputs, shared, lower = self.represent((gate_inputs, shared, lower))
        fused = {}
        for task in self.tasks:
            branch = TaskExperts(
                stage=self.trunk[-1],
                experts=self.task_experts,
                is_image=len(self.trunk) == 1,
                remat=self.remat,
                name=TASK_PREFIX + task,
            )
            outputs = branch(gate_inputs[task], shared, train)
            fused[task] = (*lower[task], *outputs)[-self.taps :]
        return fused

    def run_copies(
        self, owner: str, stage: int, count: int, x: Activations, train: bool
    ) -> list[Activations]:
        """Outputs of the experts of `owner`: `count` copies of a stage."""
        copies = [self.copy_stage(stage, f"{owner}_expert_{stage}_{n}") for n in range(count)]
        return [self.run_stage(expert, x, train) for expert in copies]


class TaskExperts(nn.Module):
    """Last level of one task: the gate before it, its experts, and the gate after it."""

    stage: nn.Module
    """Stage of the trunk that is copied."""
    experts: int
    """Number of copies."""
    is_image: bool
    """True if the experts read the image."""
    remat: bool
    """True to recompute activations in the backward pass."""

    @nn.compact
    def __call__(self, inputs: GateInputs, shared: list[Activations], train: bool) -> Features:
        x = apply_gate(inputs, name="enter")
        outputs = []
        for n in range(self.experts):
            expert = self.stage.clone(parent=self, name=f"expert_{n}")
            outputs.append(run_stage(expert, x, train, self.remat))
        summary = summarize(x, self.is_image)
        out = features_of(apply_gate(([*outputs, *shared], summary), name="gate"))
        return (out,) if inputs[1] is None else (features_of(x), out)


def first_expert_stage(fusion: Fusion, levels: int) -> int:
    """Index of the first stage whose copies are experts."""
    if not 1 <= levels <= len(fusion.trunk):
        raise ValueError(
            f"fusion {type(fusion).__name__}: experts are copies of the last {levels} stages, but "
            f"this trunk has {len(fusion.trunk)}; choose a number from 1 to {len(fusion.trunk)}"
        )
    return len(fusion.trunk) - levels
