"""Throughput of the train loop, compared with the compiled step and with a plain PyTorch loop.

    python benchmarks/loop.py [--rounds 5]

Three programs train the same two-task network on the digits, one after the other in each round:

- loop: `mtljax.training.loop.train_group`, as used by the command line, with logging and progress,
  from its second chunk on (the first compiles);
- compiled step: the same step on batches that are on the device, dispatched one by one or in a loop
  in one program, as in the train loop;
- PyTorch: a plain loop over tensors in memory with Adam, which reads the losses at the same
  interval as the train loop. Skipped if `torch` is not installed.

Prints medians over the rounds, and ratios within a round.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mtljax import compiler_options, find_experiment, parallel, use_compile_cache
from mtljax.build import load_source, train_step
from mtljax.data import pipeline
from mtljax.training.loop import train_group
from mtljax.training.programs import Programs
from mtljax.training.setup import set_up

CASES = {
    "mlp": {"trunk": "mlp:widths=(64,),norm=none", "batch": 32, "steps": 12000, "log_every": 400},
    "cnn": {"trunk": "cnn:norm=none", "batch": 64, "steps": 300, "log_every": 10},
}


def experiment_of(case: dict):
    base = find_experiment("digits")
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, augment="none", batch_size=case["batch"]),
        trunk=case["trunk"],
        steps=case["steps"],
        log_every=case["log_every"],
        eval_every=case["steps"],
        optimizer="adam",
        schedule="constant",
        ema=None,
    )


def loop(case: dict) -> float:
    """Examples per second of the train loop."""
    experiment = experiment_of(case)
    programs = Programs(set_up(experiment))
    with tempfile.TemporaryDirectory() as folder:
        (result,) = train_group(
            [experiment], [Path(folder) / "run"], programs, quiet=True, report=False
        )
    return result.examples_per_second


def compiled_step(case: dict) -> float:
    """Examples per second of the compiled step, on batches on the device."""
    experiment = experiment_of(case)
    programs = Programs(set_up(experiment, devices=1))
    state, step = programs.create(0), train_step(experiment, programs.setup.parts)
    executor = programs.executor([0], 0)
    state, logs = executor.run(state, 0, case["log_every"])  # also sets `program.loops`
    count = case["steps"] - case["log_every"]
    batches = [executor.batch(i) for i in range(case["log_every"])]
    if executor.program.loops:
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *batches)
        many = jax.jit(
            lambda state: jax.lax.scan(step, state, stacked),
            donate_argnums=0,
            compiler_options=compiler_options(),
        )
        state, logs = jax.block_until_ready(many(state))
        start = time.perf_counter()
        for _ in range(count // case["log_every"]):
            state, logs = many(state)
    else:
        one = jax.jit(step, donate_argnums=0, compiler_options=compiler_options())
        state, logs = jax.block_until_ready(one(state, batches[0]))
        start = time.perf_counter()
        for i in range(count):
            state, logs = one(state, batches[i % len(batches)])
    jax.block_until_ready((state, logs))
    return count * case["batch"] / (time.perf_counter() - start)


def torch_loop(case: dict) -> float:
    """Examples per second of a plain PyTorch loop with the same network."""
    import torch
    from torch import nn

    source = load_source(experiment_of(case))
    arrays = source.train.take(slice(None))
    image = (torch.tensor(arrays["image"]) - source.mean) / source.std
    digit = torch.tensor(arrays["labels"]["digit"]).long()
    value = torch.tensor(arrays["labels"]["value"])
    if case["trunk"].startswith("mlp"):
        trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU())
        width = 64
    else:
        layers, last = [], 1
        for i, width in enumerate((16, 32, 64)):
            layers += [nn.MaxPool2d(2)] if i else []
            for _ in range(2):
                layers += [nn.Conv2d(last, width, 3, padding=1), nn.ReLU()]
                last = width
        trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        image, width = image.permute(0, 3, 1, 2).contiguous(), last
    heads = nn.ModuleDict({"digit": nn.Linear(width, 10), "value": nn.Linear(width, 1)})
    params = [*trunk.parameters(), *heads.parameters()]
    optimizer = torch.optim.Adam(params, lr=6e-3)
    order = torch.tensor(
        pipeline.BatchSampler(seed=0, size=len(image), batch_size=case["batch"]).batches(
            0, case["steps"]
        )
    ).long()

    def step(rows):
        features = trunk(image[rows])
        predicted = 4.5 + 2.9 * heads["value"](features)[:, 0]
        losses = (
            nn.functional.cross_entropy(heads["digit"](features), digit[rows]),
            ((predicted - value[rows]) / 2.9).abs().mean(),
        )
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
        return losses

    for rows in order[: case["log_every"]]:
        step(rows)
    count = case["steps"] // (4 if case["trunk"].startswith("mlp") else 1) - case["log_every"]
    start = time.perf_counter()
    for i in range(count):
        losses = step(order[case["log_every"] + i])
        if i % case["log_every"] == 0:
            _ = [float(loss.detach()) for loss in losses]
    return count * case["batch"] / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    use_compile_cache()
    programs = {"loop": loop, "compiled step": compiled_step}
    try:
        import torch

        programs["PyTorch"] = torch_loop
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    except ImportError:
        print("torch is not installed; the comparison with PyTorch is skipped")
    print(f"jax {jax.__version__}, {parallel.describe()}\n")
    for name, case in CASES.items():
        rates: dict[str, list[float]] = {program: [] for program in programs}
        for _ in range(rounds):
            for program, run in programs.items():
                rates[program].append(run(case))
        print(f"{name}, batch {case['batch']}: {case['trunk']}")
        for program, values in rates.items():
            ratios = [a / b for a, b in zip(rates["loop"], values, strict=True)]
            print(
                f"  {program:13}{statistics.median(values):12,.0f} examples/s"
                f"   loop / this: {statistics.median(ratios):.2f}"
                f"  ({min(ratios):.2f} to {max(ratios):.2f})"
            )
        print(f"  {1e6 * case['batch'] / np.median(rates['loop']):.0f} us per step of the loop\n")


if __name__ == "__main__":
    main()
