"""Time of the combine function of each balancer, compared with TorchJD on the same input.

    python benchmarks/balancers.py [--tasks 2 3 10 40] [--seconds 0.2]

The comparison needs the extra `parity`; without it only the times of mtljax are printed. Both
libraries use one thread (`taskset -c 0` pins them to the same core), the same Gramian or Jacobian
with 1000 columns, and the same measuring time. mtljax is timed per call in a compiled loop of 50
calls, as in a train step; `--dispatch` calls each from Python, which adds about 15 us per call.
"""

import argparse
import functools
import math
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np

from mtljax import compiler_options
from mtljax.balancing import BALANCERS, Needs, Signals, required_arguments
from mtljax.balancing.base import gramian

WIDTH = 1000
TARGET = 20.0
REPEATS = 50

TORCHJD = {
    "ew": ("Sum", {}, {}),
    "mgda": ("MGDA", {}, {}),
    "pcgrad": ("PCGrad", {}, {}),
    "gradvac": ("GradVac", {}, {}),
    "cagrad": ("CAGrad", {"c": 0.5}, {}),
    "imtl_g": ("IMTLG", {}, {}),
    "nash_mtl": ("NashMTL", {"n_tasks": None}, {"normalize": True, "max_norm": 1.0}),
    "fairgrad": ("FairGrad", {"alpha": 1.0}, {}),
    "aligned_mtl": ("AlignedMTL", {}, {}),
    "config": ("ConFIG", {}, {}),
    "upgrad": ("UPGrad", {}, {}),
    "dualproj": ("DualProj", {}, {}),
    "krum": ("Krum", {"n_byzantine": 0}, {}),
    "graddrop": ("GradDrop", {}, {}),
    "trimmed_mean": ("TrimmedMean", {"trim_number": 0}, {"trim": 0}),
    "excess_mtl": ("ExcessMTL", {}, {}),
}
"""Balancer: (TorchJD aggregator, its arguments, arguments of the balancer that match them).

Aggregators with a Gramian weighting are timed through it."""


def median_time(call, seconds):
    call()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def mtljax_call(name, num_tasks, arguments=None, dispatch=False):
    """Returns a call of one jitted combine, or of `REPEATS` in a loop that carries the state."""
    per_task = ([1.0] * num_tasks for _ in required_arguments(name))
    balancer = BALANCERS[name](*per_task, **(arguments or {}))
    rows = jnp.asarray(jacobian(num_tasks))
    repeat = lambda x: x if balancer.samples == 1 else jnp.stack([x] * balancer.samples)
    gram = gramian(rows)
    if balancer.samples > 1:
        shape = (balancer.samples, num_tasks) * 2
        gram = jnp.broadcast_to(gram[None, :, None, :], shape)
    signals = Signals(
        losses=repeat(jnp.linspace(0.5, 2.0, num_tasks)),
        present=repeat(jnp.ones(num_tasks, bool)),
        step=jnp.zeros((), jnp.int32),
        gramian=gram if balancer.needs is Needs.GRAMIAN else None,
        jacobian=rows if balancer.needs is Needs.JACOBIAN else None,
    )
    state, key = balancer.init(num_tasks, rows[0]), jax.random.key(0)
    if dispatch:
        combine = jax.jit(balancer.combine, compiler_options=compiler_options())
        return lambda: jax.block_until_ready(combine(signals, state, key))

    def many(signals, state, key):
        def body(i, carry):
            total, state = carry
            # Different input per iteration, or XLA would compute the result only once.
            vary = lambda x: None if x is None else x * (1 + 1e-6 * i)
            inputs = signals._replace(
                losses=vary(signals.losses),
                gramian=vary(signals.gramian),
                jacobian=vary(signals.jacobian),
            )
            combined, state = balancer.combine(inputs, state, jax.random.fold_in(key, i))
            return total + combined, state

        zeros = jnp.zeros_like(jax.eval_shape(balancer.combine, signals, state, key)[0])
        return jax.lax.fori_loop(0, REPEATS, body, (zeros, state))

    many = jax.jit(many, compiler_options=compiler_options())
    return lambda: jax.block_until_ready(many(signals, state, key))


def torchjd_call(name, num_tasks):
    """Returns a call of TorchJD; None if it is not installed or rejects `num_tasks`."""
    try:
        import torch
        from torchjd import aggregation
    except ImportError:
        return None
    torch.set_num_threads(1)
    aggregator_name, arguments, _ = TORCHJD[name]
    arguments = {k: num_tasks if v is None else v for k, v in arguments.items()}
    rows = torch.tensor(jacobian(num_tasks))
    try:
        aggregator = getattr(aggregation, aggregator_name)(**arguments)
        call = functools.partial(aggregator, rows)
        weighting = getattr(aggregator, "gramian_weighting", None)
        if weighting is not None:
            call = functools.partial(weighting, rows @ rows.T)
        call()
    except (ImportError, AttributeError, NameError, ValueError):
        return None
    return call


@functools.cache
def jacobian(num_tasks):
    """Jacobian [T, WIDTH] with two conflicting groups of tasks."""
    rng = np.random.default_rng(num_tasks)
    sign = np.where(np.arange(num_tasks) % 2 == 0, 1.0, -1.0)[:, None]
    noise = rng.standard_normal((num_tasks, WIDTH))
    return (sign * rng.standard_normal(WIDTH) + noise).astype(np.float32)


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 3, 10, 40])
    parser.add_argument("--seconds", type=float, default=0.2, help="per method, library and T")
    parser.add_argument("--dispatch", action="store_true", help="call each combine from Python")
    options = parser.parse_args()

    columns = "".join(f"{f'T={count}':>24}" for count in options.tasks)
    print(f"{'combine':14}{columns}     (us; TorchJD time / mtljax time)")
    ratios, slower = [], []
    for name in BALANCERS:
        if name in ("auto_lambda", "moml", "forum"):
            continue  # the trial step dominates their time
        line = f"{name:14}"
        for count in options.tasks:
            arguments = TORCHJD[name][2] if name in TORCHJD else {}
            call = mtljax_call(name, count, arguments, options.dispatch)
            seconds = median_time(call, options.seconds) / (1 if options.dispatch else REPEATS)
            line += f"{seconds * 1e6:12.1f}"
            reference = torchjd_call(name, count) if name in TORCHJD else None
            if reference is None:
                line += f"{'-':>12}"
                continue
            ratio = median_time(reference, options.seconds) / seconds
            ratios.append(ratio)
            if ratio < 1:
                slower.append(f"{name} at T={count} ({ratio:.2f}x)")
            line += f"{ratio:11.1f}x"
        print(line, flush=True)

    if not ratios:
        print("\nTorchJD is not installed: pip install 'mtljax[parity]'")
        return
    mean = geometric_mean(ratios)
    verdict = "reached" if mean >= TARGET else f"NOT reached, by a factor of {TARGET / mean:.2f}"
    print(f"\nTorchJD / mtljax, geometric mean of {len(ratios)} ratios: {mean:.1f}x")
    print(f"Target, geometric mean of {TARGET:.0f}x: {verdict}.")
    verdict = f"NOT reached: {', '.join(slower)}" if slower else "reached"
    print(f"Target, no method slower: {verdict}.")


if __name__ == "__main__":
    main()
