"""Experts and gates: what the mixtures (MMoE, DSelect-k) and the layered ones (CGC, PLE) share."""

import re

import flax.linen as nn
from jaxtyping import Array, Float

from mtljax.models.fusion.base import Fusion, run_stage
from mtljax.models.layers import global_average_pool
from mtljax.models.partition import TASK_PREFIX
from mtljax.models.trunks.base import Activations, features_of, weighted_sum

Entrance = tuple[list[Activations], Float[Array, "B F"] | None]
"""What the gate before a level mixes, and what it reads: None before the first, without a gate."""


class SoftmaxGate(nn.Module):
    """softmax(W x): how much of each expert an example gets."""

    count: int

    @nn.compact
    def __call__(self, summary: Float[Array, "B F"]) -> Float[Array, "B N"]:
        gate = nn.softmax(nn.Dense(self.count)(summary))
        self.sow("intermediates", "gate", gate)
        return gate


def summary(x: Activations, is_image: bool) -> Float[Array, "B F"]:
    """What gates read: features averaged over space, or every pixel of the image."""
    features = features_of(x)
    return features.reshape(features.shape[0], -1) if is_image else global_average_pool(features)


class Mixture(Fusion):
    """Shared lower stages; copies of the upper ones as experts; a gate per task mixes them.

    Experts are shared, gates are task-specific. The representation for `level="features"` is what
    the experts and the stages below give.
    """

    experts: int = 4
    expert_stages: int = 1

    @nn.nowrap
    def stage_of(self, module: str) -> int | None:
        found = re.fullmatch(r"expert_\d+_(\d+)", module)
        first = len(self.trunk) - self.expert_stages
        return first + int(found[1]) if found else super().stage_of(module)

    def gate(self, task: str) -> nn.Module:
        """The task's gate, `summary -> weights [N] or [B, N]`, named `task_<name>`."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, image, *, train):
        first = first_expert_stage(self, self.expert_stages)
        below = (image, *self.run_stages(self.trunk[:first], image, train))
        runs = []
        for n in range(self.experts):
            copies = [
                self.copy_stage(first + i, f"expert_{n}_{i}") for i in range(self.expert_stages)
            ]
            runs.append([features_of(x) for x in self.run_stages(copies, below[-1], train)])
        lower = tuple(features_of(x) for x in below[1:])
        lower, runs, seen = self.represent((lower, runs, summary(below[-1], first == 0)))
        fused = {}
        for task in self.tasks:
            weights = self.gate(task)(seen)
            mixed = [weighted_sum(weights, level) for level in zip(*runs, strict=True)]
            fused[task] = (*lower, *mixed)[-self.taps :]
        return fused


class Layered(Fusion):
    """Levels of shared and task-specific experts with gates between; see `CGC` and `PLE`."""

    shared_experts: int = 2
    task_experts: int = 1

    @nn.nowrap
    def stage_of(self, module: str) -> int | None:
        if re.fullmatch(rf"{TASK_PREFIX}[^/]+/expert_\d+", module):
            return len(self.trunk) - 1
        found = re.fullmatch(r"[^/]+_expert_(\d+)_\d+", module)
        return int(found[1]) if found else super().stage_of(module)

    def extract(self, image: Array, train: bool, levels: int) -> dict[str, tuple[Array, ...]]:
        """The features of each task, with the last `levels` stages as levels of experts."""
        first = first_expert_stage(self, levels)
        below = (image, *self.run_stages(self.trunk[:first], image, train))
        common, own = below[-1], dict.fromkeys(self.tasks, below[-1])
        lower = {task: [features_of(x) for x in below[1:]] for task in self.tasks}
        entering: dict[str, Entrance] = {task: ([x], None) for task, x in own.items()}
        for level in range(levels - 1):
            is_image, stage = first + level == 0, first + level
            if level:
                own = {
                    task: enter(*entering[task], name=f"{task}_gate_{level - 1}")
                    for task in self.tasks
                }
                for task, x in own.items():
                    lower[task].append(features_of(x))
            shared = self.run_copies("shared", stage, self.shared_experts, common, train)
            private = {
                task: self.run_copies(task, stage, self.task_experts, x, train)
                for task, x in own.items()
            }
            everything = [*shared, *(x for experts in private.values() for x in experts)]
            gate = SoftmaxGate(len(everything), name=f"shared_gate_{level}")
            common = weighted_sum(gate(summary(common, is_image)), everything)
            entering = {
                task: ([*private[task], *shared], summary(x, is_image)) for task, x in own.items()
            }
        shared = self.run_copies("shared", len(self.trunk) - 1, self.shared_experts, common, train)
        entering, shared, lower = self.represent((entering, shared, lower))
        fused = {}
        for task in self.tasks:
            branch = TaskExperts(
                stage=self.trunk[-1],
                experts=self.task_experts,
                is_image=len(self.trunk) == 1,
                remat=self.remat,
                name=TASK_PREFIX + task,
            )
            made = branch(*entering[task], shared, train)
            fused[task] = (*lower[task], *made)[-self.taps :]
        return fused

    def run_copies(
        self, owner: str, stage: int, count: int, x: Activations, train: bool
    ) -> list[Activations]:
        """What `count` copies of a stage, the experts of `owner`, give."""
        copies = [self.copy_stage(stage, f"{owner}_expert_{stage}_{n}") for n in range(count)]
        return [self.run_stage(expert, x, train) for expert in copies]


class TaskExperts(nn.Module):
    """One task's part of the last level: the gate before it, its experts, the gate after it."""

    stage: nn.Module
    experts: int
    is_image: bool
    remat: bool

    @nn.compact
    def __call__(self, parts, seen, shared, train):
        own = enter(parts, seen, name="enter")
        made = []
        for n in range(self.experts):
            expert = self.stage.clone(parent=self, name=f"expert_{n}")
            made.append(run_stage(expert, own, train, self.remat))
        gate = SoftmaxGate(len(made) + len(shared), name="gate")
        out = features_of(weighted_sum(gate(summary(own, self.is_image)), [*made, *shared]))
        return (out,) if seen is None else (features_of(own), out)


def enter(parts: list[Activations], seen: Float[Array, "B F"] | None, name: str) -> Activations:
    """What a gate called `name` makes of a level's experts; what came in where there is no gate."""
    if seen is None:
        return parts[0]
    return weighted_sum(SoftmaxGate(len(parts), name=name)(seen), parts)


def first_expert_stage(fusion: Fusion, levels: int) -> int:
    """The index of the first stage whose copies are experts."""
    if not 1 <= levels <= len(fusion.trunk):
        raise ValueError(
            f"fusion {type(fusion).__name__}: experts are copies of the last {levels} stages, but "
            f"this trunk has {len(fusion.trunk)}; choose a number from 1 to {len(fusion.trunk)}"
        )
    return len(fusion.trunk) - levels
