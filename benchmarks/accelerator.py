"""Train steps on an accelerator: mtljax beside PyTorch, torch.compile, a loop and TorchJD.

    python benchmarks/accelerator.py [--budget 540] [--json benchmarks/accelerator.json]
    python benchmarks/accelerator.py --small           # tiny shapes, to try it on a CPU
    bash benchmarks/accelerator.sh                     # on a machine without a network

Complete train steps (forward, backward, balancer, Adam) on one batch on the device, with bf16
compute and float32 parameters, of the same networks in all libraries:

- vit: ViT-B/16, 3 classification heads, batch 128, 224x224
- resnet50: ResNet-50, 3 classification heads, batch 256, 224x224
- nyuv2: ResNet-50 at output stride 8, ASPP heads for 3 dense tasks, batch 8, 288x384
- celeba: ResNet-18, 40 binary tasks, batch 256, 64x64

Then the train loop on JPEG files compared with its own step, five seeds compared with one, the
conformance tests on this backend, and the Jacobian row by row. Each library runs in its own
process. Whatever does not fit into the time budget is listed as not measured, as are variants that
fail. MFU: model-FLOP utilization,
images/s times the operations of a step that computes the sum of the losses (three times those of
the forward pass), over the peak rate of the device. TorchJD is left out for nyuv2: its
`mtl_backward` accepts no representation of which one part depends on another.
"""

import argparse
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from accelerator_table import report

HERE = Path(__file__).parent
EXACT, FEATURES, GRAMIAN = "pcgrad", "pcgrad:level=features", "pcgrad:jacobian=gramian"
PLAN = [
    ("vit", "mtljax", ("ew", EXACT)),
    ("vit", "torch", ("ew:compile", "ew")),
    ("resnet50", "mtljax", ("ew", EXACT)),
    ("resnet50", "torch", ("ew:compile", "ew")),
    ("nyuv2", "mtljax", ("ew", EXACT)),
    ("celeba", "mtljax", ("ew", EXACT, "ew:tasks=3", EXACT + ":tasks=3")),
    ("celeba", "torch", ("ew", "loop", "torchjd", "torchjd:chunk=1")),
    ("nyuv2", "torch", ("ew:compile", "ew", "loop")),
    ("resnet50", "mtljax", (FEATURES, GRAMIAN)),
    ("nyuv2", "mtljax", (FEATURES, GRAMIAN)),
    ("resnet50", "torch", ("loop", "torchjd", "torchjd:chunk=1")),
    ("vit", "mtljax", (FEATURES, GRAMIAN)),
    ("vit", "torch", ("loop", "torchjd", "torchjd:chunk=1")),
    ("celeba", "mtljax", (FEATURES,)),
    ("celeba", "torch", ("ew:compile",)),
    ("loop", "mtljax", ("jpeg", "seeds")),
    ("conformance", "mtljax", ("gradients", "metrics", "steps")),
    ("resnet50", "mtljax", (EXACT + ":pullback=loop",)),
    ("vit", "mtljax", (EXACT + ":pullback=loop",)),
    ("celeba", "mtljax", (EXACT + ":pullback=8",)),
]
"""(workload, library, variants) in the order of measurement: most important first."""
WORKERS = {"mtljax": "accelerator_jax.py", "torch": "accelerator_torch.py"}
SHORTEST = 20
"""Seconds below which no further process is started."""


def command(workload, side, variants, flags):
    """Returns the command of one process."""
    if workload in ("loop", "conformance"):
        program = [f"accelerator_{workload}.py", *variants]
    else:
        program = [WORKERS[side], workload, *variants, "--seconds", str(flags.seconds)]
    small = ["--small"] if flags.small else []
    return [sys.executable, str(HERE / program[0]), *program[1:], *small]


def run_process(words, seconds, log):
    """Returns (JSON objects that a process prints, why there are no more); ends it in time."""
    with (
        tempfile.TemporaryFile("w+") as messages,
        subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=messages, text=True, process_group=0
        ) as process,
    ):
        try:
            out, _ = process.communicate(timeout=seconds)
            reason = ""
        except BaseException as error:  # also where this process is ended
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            out, _ = process.communicate()
            reason = f"its process was ended after {seconds:.0f} s"
        messages.seek(0)
        text = messages.read()
    log.write(text)
    reason = reason or (text.strip().splitlines() or ["no message"])[-1]
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")], reason


def measure(plan, flags, log):
    """Yields (rows, rows without result) so far after each process, and prints a line."""
    start, rows, missing = time.monotonic(), [], []
    for workload, side, variants in plan:
        began = time.monotonic()
        left = flags.budget - (began - start)
        found, reason = [], "the time budget was spent"
        if left >= SHORTEST:
            words = command(workload, side, variants, flags)
            found, reason = run_process(words, min(left, flags.limit), log)
        by_variant = {row["variant"]: row for row in found}
        for variant in variants:
            row = {"workload": workload, "side": side, "variant": variant}
            row |= by_variant.get(variant, {"error": reason})
            (missing if "error" in row else rows).append(row)
        taken = time.monotonic() - began
        print(f"{workload} {side}: {len(found)} of {len(variants)} in {taken:.0f} s", flush=True)
        yield rows, missing


def selected(flags):
    """Returns the part of the plan that the flags select."""
    chosen = []
    for workload, side, variants in PLAN:
        variants = tuple(v for v in variants if not flags.variants or v in flags.variants)
        if workload in flags.workloads and side in flags.sides and variants:
            chosen.append((workload, side, variants))
    return chosen


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(dict.fromkeys(workload for workload, _, _ in PLAN))
    parser.add_argument("--workloads", nargs="+", choices=names, default=names)
    parser.add_argument("--sides", nargs="+", choices=WORKERS, default=list(WORKERS))
    parser.add_argument("--variants", nargs="+", help="only these")
    parser.add_argument("--small", action="store_true", help="tiny shapes, to try it on a CPU")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured per variant")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds in all")
    parser.add_argument("--limit", type=float, default=240, help="seconds per process")
    parser.add_argument("--peak", type=float, help="peak TFLOP/s; default: from a table by device")
    parser.add_argument("--json", type=Path, help="write rows and what is missing to this file")
    parser.add_argument("--log", type=Path, help="write the messages of the processes to this file")
    flags = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the programs, too
    if not selected(flags):
        parser.error("the plan has no such rows")
    # One folder for the run: programs that share convolutions share what autotuning found.
    with tempfile.TemporaryDirectory() as cache, open(flags.log or os.devnull, "a") as log:
        os.environ.setdefault("MTLJAX_CACHE", cache)
        for rows, missing in measure(selected(flags), flags, log):
            result = {
                "date": datetime.date.today().isoformat(),
                "small": flags.small,
                "versions": sorted({row["version"] for row in rows if "version" in row}),
                "devices": sorted({row["device"] for row in rows if "device" in row}),
                "rows": rows,
                "not_measured": missing,
            }
            if flags.json:  # after each process, in case that this one is ended
                flags.json.write_text(json.dumps(result, indent=1) + "\n")
    print(report(result, flags.peak))


if __name__ == "__main__":
    main()
