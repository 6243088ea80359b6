"""Tests of the numbers on the default backend of JAX: one JSON row per suite.

    python benchmarks/accelerator_conformance.py [gradients metrics]

- gradients: balancers and solvers against their float64 references, and products in full float32
- metrics: losses, metrics and decoding of tasks against theirs, and geometric augmentation
- steps: the options of the train step against each other; networks multiply in full float32, too

Tolerances are those of the CPU.
"""

import functools
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from workloads import run_cases

ROOT = Path(__file__).parent.parent
PROCESSES = min(8, (os.cpu_count() or 1) // 2)
SUITES = {
    "gradients": ["tests/balancing", "tests/step/test_precision.py"],
    "metrics": [
        "tests/tasks",
        "tests/data/test_augment.py",
        "tests/evaluation/test_calibration.py",
    ],
    "steps": ["tests/step/test_train_step.py", "tests/step/test_matrix.py"],
}
SMALL = {
    "gradients": ["tests/balancing/test_solvers.py"],
    "metrics": ["tests/tasks/test_distances.py"],
    "steps": ["tests/step/test_precision.py"],
}


def run(paths, environment):
    """Returns ({outcome: number of tests}, names of the tests that failed)."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # Other versions of JAX and NumPy warn about other things.
        options = f"-n {PROCESSES} -p no:cacheprovider -W default --junitxml {report}".split()
        command = [sys.executable, "-m", "pytest", *options, *paths]
        subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr)
        (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    count = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    failed = [
        f"{case.get('classname')}.{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return count, failed


def measure(suite, small):
    """Returns the row of one suite."""
    environment = dict(os.environ)
    environment.setdefault("MTLJAX_TEST_PLATFORM", "default")
    environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the processes share the device
    if suite == "steps":
        environment["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
    count, failed = run((SMALL if small else SUITES)[suite], environment)
    return {"measured": count, "failed": failed}


if __name__ == "__main__":
    suites = {suite: functools.partial(measure, suite) for suite in SUITES}
    run_cases("conformance", suites, __doc__)
