"""Time of a short run from the command line, compared with the import of its libraries.

    python benchmarks/startup.py [--rounds 3] [--experiment digits] [FLAGS OF THE EXPERIMENT]

In each round, in processes of their own:

- import: user and system time of `python -c "import jax, flax.linen, optax"`;
- cold: wall time of `python -m mtljax.main --experiment digits`, report included, with an empty
  cache of compiled programs;
- warm: the same again, with the cache that the former has left.

Prints the times and the ratios to the import of the same round. Then a cold and a warm run are
repeated under a profiler, which prints how much of their wall time each part takes.
"""

import argparse
import builtins
import collections
import contextlib
import functools
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

IMPORT = [sys.executable, "-c", "import jax, flax.linen, optax"]
PARTS = {
    "mtljax.build:load_source": "data",
    "mtljax.training.programs:Programs._evaluator": "data",
    "mtljax.training.programs:Programs._device_data_program": "data",
    "mtljax.training.executors:DeviceDataProgram.run": "steps, dispatched",
    "mtljax.training.group:RunGroup.record": "steps, waited for",
    "mtljax.training.group:RunGroup.save": "evaluations and checkpoints",
    "mtljax.training.group:RunGroup.finish": "evaluations and checkpoints",
    "mtljax.training.run:Run._write_report": "report",
}
"""Function -> part of the run that its time counts for, without the functions that it calls."""
COMPILATION = {
    "jaxpr_trace_duration": "tracing",
    "jaxpr_to_mlir_module_duration": "lowering",
    "backend_compile_duration": "compilation",
}
"""Event of `jax.monitoring` -> part of the run."""


def run_main(arguments: list[str], folder: str, cache: str, command: list[str]) -> float:
    """Runs the command line in a new run folder and returns its wall time."""
    with tempfile.TemporaryDirectory(dir=folder) as workdir:
        command = [*command, *arguments, "--workdir", f"{workdir}/run"]
        start = time.perf_counter()
        environment = {**os.environ, "MTLJAX_CACHE": cache}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        return time.perf_counter() - start


def import_seconds() -> float:
    """CPU time of the import of the libraries."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(IMPORT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Profiler:
    """Wall time of the parts of a run; nested parts count once, and threads apart."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.in_threads: dict[str, float] = collections.defaultdict(float)
        self._inner = [0.0]  # seconds of the parts inside each open part
        self._importing = False

    @contextlib.contextmanager
    def part(self, name: str):
        start, _ = time.perf_counter(), self._inner.append(0.0)
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.seconds[name] += elapsed - self._inner.pop()
            self._inner[-1] += elapsed

    def event(self, name: str, seconds: float, **_) -> None:
        """Listener of `jax.monitoring`."""
        part = COMPILATION.get(name.rsplit("/", 1)[-1])
        if part and threading.current_thread() is threading.main_thread():
            self.seconds[part] += seconds
            self._inner[-1] += seconds
        elif part:
            self.in_threads[part] += seconds

    def time_imports(self) -> None:
        importer = builtins.__import__

        def timed_import(*args, **kwargs):
            in_main = threading.current_thread() is threading.main_thread()
            if not in_main or self._importing:
                return importer(*args, **kwargs)
            self._importing = True
            try:
                with self.part("imports"):
                    return importer(*args, **kwargs)
            finally:
                self._importing = False

        builtins.__import__ = timed_import

    def time_function(self, path: str, part: str) -> None:
        module, _, names = path.partition(":")
        *owners, name = names.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args, **kwargs):
            with self.part(part):
                return function(*args, **kwargs)

        setattr(owner, name, timed)


def profile(output: str, arguments: list[str]) -> int:
    """Runs the command line in this process and writes the seconds of its parts."""
    start, profiler = time.perf_counter(), Profiler()
    profiler.time_imports()
    from jax import monitoring

    from mtljax.main import main

    monitoring.register_event_duration_secs_listener(profiler.event)
    for path, part in PARTS.items():
        profiler.time_function(path, part)
    status = main(arguments)
    total = time.perf_counter() - start
    rest = total - sum(profiler.seconds.values())
    beside = {f"{part}, in threads": x for part, x in profiler.in_threads.items()}
    parts = {**profiler.seconds, "other": rest, "total": total, **beside}
    Path(output).write_text(json.dumps(parts))
    return status


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--experiment", default="digits")
    parser.add_argument("--profile-to", help=argparse.SUPPRESS)
    flags, rest = parser.parse_known_args()
    if flags.profile_to:
        return profile(flags.profile_to, ["--experiment", flags.experiment, *rest])
    arguments = ["--experiment", flags.experiment, *rest]
    times = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(flags.rounds):
            cache = tempfile.mkdtemp(dir=folder)
            times["import"].append(import_seconds())
            for kind in ("cold", "warm"):
                command = [sys.executable, "-m", "mtljax.main"]
                times[kind].append(run_main(arguments, folder, cache, command))
        for kind, seconds in times.items():
            ratios = [a / b for a, b in zip(seconds, times["import"], strict=True)]
            print(
                f"{kind:8}{statistics.median(seconds):6.2f} s   / import: "
                f"{statistics.median(ratios):5.1f}  ({min(ratios):.1f} to {max(ratios):.1f})"
            )
        parts, cache = {}, tempfile.mkdtemp(dir=folder)
        for kind in ("cold", "warm"):
            output = f"{folder}/{kind}.json"
            command = [sys.executable, __file__, "--profile-to", output]
            wall = run_main(arguments, folder, cache, command)
            parts[kind] = json.loads(Path(output).read_text())
            parts[kind]["start and end of the process"] = wall - parts[kind].pop("total")
        print(f"\n{'seconds in':32}{'cold':>8}{'warm':>8}")
        for part in parts["cold"]:
            print(f"{part:32}{parts['cold'][part]:8.2f}{parts['warm'].get(part, 0):8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
