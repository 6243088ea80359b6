"""Comparisons on a Ray cluster and as jobs of submitit: the same tables as in one process."""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.cli import SMALL, finish, start, wait_until
from support.processes import descendants

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for workers in /proc")

FLAGS = (
    *("compare", *SMALL, "--log-every", "5", "--eval-every", "10", "--balancers"),
    *("--devices", "1", "--quiet"),
)
CPUS = max(1, (os.cpu_count() or 1) // 2)
ENGINES = {
    "ray": (f"ray:cpus={CPUS},retries=30", "ray::train_task"),
    "submitit": (f"slurm:executor=local,cpus={CPUS},retries=30", "submitit.core._submit"),
}
"""Two workers at a time, and the start of their command line."""


@pytest.fixture(params=ENGINES)
def engine(request):
    """Name of the package of each engine that is installed."""
    pytest.importorskip(request.param)
    return request.param


def flags(balancers, seeds, steps):
    at = FLAGS.index("--balancers") + 1
    return (*FLAGS[:at], *balancers, "--seeds", seeds, "--steps", steps, *FLAGS[at:])


def results(folder):
    files = {str(f.parent.relative_to(folder)): f for f in folder.glob("members/*/*/result.json")}
    return {name: json.loads(file.read_text()) for name, file in files.items()}


def require_same(folder, other, count):
    """The runs and tables are equal, to the last bit: the same programs on one thread or two."""
    ours, theirs = results(folder), results(other)
    assert len(ours) == count
    assert ours.keys() == theirs.keys()
    for run in ours:
        for part in ("test", "validation", "best_step", "skipped", "parameters", "telemetry"):
            assert ours[run][part] == theirs[run][part], (run, part)
    for name in ("results.csv", "results.tex"):
        assert (folder / name).read_text() == (other / name).read_text()


def workers(process, name):
    return [pid for pid, text in descendants(process.pid).items() if name in text]


def finish_with_a_kill(arguments, name, begun, **settings):
    """Runs a comparison, of which one worker is killed once `begun` finds a file."""
    process = start(*arguments, cache=os.environ["MTLJAX_CACHE"], **settings)
    wait_until(lambda: list(begun()), process)
    pids = workers(process, name)
    assert pids
    os.kill(pids[0], signal.SIGKILL)
    assert finish(process) == (0, "", "")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A comparison of three runs, trained in one process."""
    folder = tmp_path_factory.mktemp("local") / "compared"
    arguments = (*flags(["pcgrad"], 1, 60), "--together", "no", "--workdir", folder)
    assert finish(start(*arguments, cache=os.environ["MTLJAX_CACHE"])) == (0, "", "")
    return folder


@pytest.mark.full
def test_a_killed_worker_changes_nothing(engine, small, tmp_path):
    text, name = ENGINES[engine]
    arguments = (*flags(["pcgrad"], 1, 60), "--engine", text, "--workdir", tmp_path)
    finish_with_a_kill(arguments, name, lambda: tmp_path.glob("members/*/*/config.json"))
    require_same(tmp_path, small, 3)


@pytest.mark.full
def test_a_comparison_in_a_bucket_is_that_in_a_folder(small, tmp_path):
    pytest.importorskip("ray")
    bucket, (text, name) = tmp_path / "bucket", ENGINES["ray"]
    url, cache = f"file://{bucket}", tmp_path / "cache"
    finish_with_a_kill(
        (*flags(["pcgrad"], 1, 60), "--engine", text, "--workdir", url),
        name,
        lambda: bucket.glob("members/*/*/config.json"),
        variables={"XDG_CACHE_HOME": str(cache)},
    )
    require_same(bucket, small, 3)
    assert list(bucket.rglob(".lock")) == []
    assert list((cache / "mtljax" / "folders").glob("*-work")) == []


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["sigterm", "ctrl-c"])
def test_a_signal_saves_all_runs_and_the_same_command_resumes(engine, number, tmp_path):
    text, name = ENGINES[engine]
    arguments = (*flags(["pcgrad"], 1, 200_000), "--engine", text, "--workdir", tmp_path)
    process = start(*arguments, cache=os.environ["MTLJAX_CACHE"])
    lines = lambda: [f for f in tmp_path.glob("members/*/*/metrics.jsonl") if f.stat().st_size]
    wait_until(lambda: len(lines()) >= 2, process)
    os.kill(process.pid, number)
    status, out, err = finish(process, timeout=60)
    assert (status, out) == (128 + number, "")
    assert err.startswith("mtljax: ")
    assert err.count("\n") == 1
    assert "run the same command to resume" in err
    for file in lines():
        last = json.loads(file.read_text().splitlines()[-1])["step"]
        saved = [int(p.name) for p in (file.parent / "checkpoints").iterdir() if p.name.isdecimal()]
        assert max(saved) >= last  # the state of the signal, not of the last evaluation
        assert not (file.parent / ".lock").exists()


def trials_of(folder):
    """Settings and scores of all trials, by method."""
    from mtljax.tuning.records import read_record

    optuna, found = pytest.importorskip("optuna"), {}
    for file in folder.glob("tuning/*/study.db"):
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{file}")
        records = map(read_record, study.get_trials())
        found[file.parent.name] = [(r.settings, r.state, r.scores, r.score) for r in records]
    return found


TUNED = (*flags(["ew"], 1, 20), "--tune", "2", "--space", "learning_rate=loguniform(1e-3,1e-1)")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A comparison of three runs that are tuned by two trials each, trained in one process."""
    folder = tmp_path_factory.mktemp("tuned") / "compared"
    arguments = (*TUNED, "--together", "no", "--workdir", folder)
    assert finish(start(*arguments, cache=os.environ["MTLJAX_CACHE"])) == (0, "", "")
    return folder


@pytest.mark.full
def test_trials_are_those_of_one_process_although_a_worker_is_killed(engine, tuned, tmp_path):
    text, name = ENGINES[engine]
    arguments = (*TUNED, "--engine", text, "--workdir", tmp_path)
    finish_with_a_kill(arguments, name, lambda: tmp_path.glob("tuning/*/trials/0002/config.json"))
    trials = trials_of(tmp_path)
    assert trials == trials_of(tuned)
    assert [len(of_method) for of_method in trials.values()] == [2, 2, 2]
    require_same(tmp_path, tuned, 3)


SIGNALS = {
    "ray": (signal.SIGKILL, signal.SIGTERM),
    "submitit": (signal.SIGKILL, signal.SIGUSR2),  # the latter is sent before the time limit
}


@pytest.mark.slow
def test_18_runs_while_workers_are_killed_at_random(engine, tmp_path):
    text, name = ENGINES[engine]
    cache, chance, kills = os.environ["MTLJAX_CACHE"], np.random.default_rng(0), 0
    arguments = flags(["ew", "uw", "pcgrad", "cagrad:c=0.4"], 3, 200)
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    local = (*arguments, "--together", "no", "--workdir", whole)
    assert finish(start(*local, cache=cache)) == (0, "", "")
    process = start(*arguments, "--engine", text, "--workdir", folder, cache=cache)
    while process.poll() is None:
        time.sleep(chance.uniform(0.5, 3))
        pids = workers(process, name)
        if kills < 12 and pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(chance.choice(pids)), SIGNALS[engine][kills % 2])
                kills += 1
    assert finish(process) == (0, "", "")
    assert kills >= 8
    require_same(folder, whole, 18)


FAKES = {
    "sbatch": """
        case "$*" in *--test-only*partition=nope*)
            echo "sbatch: error: invalid partition specified: nope" >&2
            echo "allocation failure: Invalid partition name specified" >&2
            exit 1
        esac
        case "$*" in *--test-only*) exit 0; esac
        setsid sh -c 'export SLURM_JOB_ID=$$; exec bash "$0"' "$1" > /dev/null 2>&1 &
        echo "Submitted batch job $!"
    """,
    "srun": """
        while true; do
            case "$1" in --output|--error) shift 2;; --*) shift;; *) break;; esac
        done
        exec "$@"
    """,
    "squeue": "ps -e -o pid=,stat= | awk '$2 !~ /Z/ {print $1}'",
    "scancel": 'kill -TERM -- "-$1"',
}
"""Commands of Slurm whose jobs are process groups of this machine: what they write and accept is
that of Slurm 22.05."""


@pytest.fixture
def fake_slurm(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("slurm")
    for name, text in FAKES.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def all_processes(folder):
    """Process ids of the workers of a comparison, which are no children of its process."""
    name = f"submitit.core._submit\0{folder}".encode()
    files = Path("/proc").glob("[0-9]*/cmdline")
    found = []
    for file in files:
        with contextlib.suppress(OSError):  # it has ended
            if name in file.read_bytes() and b"python" in file.read_bytes().split(b"\0")[0]:
                found.append(int(file.parent.name))
    return found


@pytest.mark.full
def test_jobs_of_slurm_are_submitted_again_and_cancelled(fake_slurm, small, tmp_path):
    pytest.importorskip("submitit")
    cache, engine = os.environ["MTLJAX_CACHE"], f"slurm:cpus={CPUS},minutes=9,parallel=2"
    arguments = (*flags(["pcgrad"], 1, 60), "--engine", engine, "--workdir", tmp_path)
    process = start(*arguments, cache=cache)
    wait_until(lambda: list(tmp_path.glob("members/*/*/config.json")), process)
    os.kill(all_processes(tmp_path)[0], signal.SIGKILL)
    process.terminate()  # cancels the others
    status, out, err = finish(process, timeout=120)
    assert (status, out) == (128 + signal.SIGTERM, "")
    assert err == "mtljax: stopped and saved; run the same command to resume\n"
    assert all_processes(tmp_path) == []

    process = start(*arguments, cache=cache)
    wait_until(lambda: all_processes(tmp_path), process)
    os.kill(all_processes(tmp_path)[0], signal.SIGKILL)
    assert finish(process) == (0, "", "")
    require_same(tmp_path, small, 3)
    scripts = [file.read_text() for file in (tmp_path / "jobs").glob("*submission*.sh")]
    assert len(scripts) >= 4
    for line in (f"--cpus-per-task={CPUS}", "--time=9", "--no-requeue", "--signal=USR2@90"):
        assert all(f"#SBATCH {line}\n" in script for script in scripts)


def test_what_slurm_refuses_is_one_line_with_its_reason(fake_slurm, tmp_path):
    pytest.importorskip("submitit")
    arguments = (*flags(["ew"], 1, 5), "--engine", "slurm:partition=nope", "--workdir", tmp_path)
    status, out, err = finish(start(*arguments, cache=os.environ["MTLJAX_CACHE"]))
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "--partition=nope" in err
    assert "allocation failure: Invalid partition name specified" in err
    assert list(tmp_path.iterdir()) == []


BAD = {
    "ray:cpus=0": "cpus must be >= 1, not 0",
    "ray:address=nowhere": "address must be local, auto or HOST:6379, not 'nowhere'",
    "ray:address=ray://a:10001": "address must be local, auto or HOST:6379, not 'ray://a:10001'",
    "ray:address=127.0.0.1:1": "no cluster at address 127.0.0.1:1: Connection refused",
    "ray:address=auto": "no cluster is running on this machine; start one by `ray start --head`",
    "ray:cpus=4096": "a run needs 4,096 CPUs and 0 GPUs, but the nodes have ",
    "ray:gpus=64": "and 64 GPUs, but the nodes have ",
    "slurm": "there is no sbatch here",
    "slurm:executor=local,cpus=4096": "a run needs 4,096 CPUs, but this machine has ",
}


@pytest.mark.parametrize(
    "text", [pytest.param(t, marks=pytest.mark.full if "pus=" in t else ()) for t in BAD]
)
def test_an_engine_that_cannot_be_used_is_one_line_and_changes_nothing(text, tmp_path):
    pytest.importorskip("ray" if "ray" in text else "submitit")
    if text == "ray:address=auto" and Path("/tmp/ray/ray_current_cluster").exists():
        pytest.skip("a Ray cluster is running on this machine")
    (tmp_path / "members").mkdir()
    (tmp_path / "results.csv").write_text("of an earlier comparison")
    arguments = (*flags(["ew"], 1, 5), "--engine", text, "--workdir", tmp_path)
    environment = {"cache": os.environ["MTLJAX_CACHE"]}
    status, out, err = finish(start(*arguments, **environment))
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert BAD[text] in err
    assert [p.name for p in sorted(tmp_path.rglob("*"))] == ["members", "results.csv"]
    assert Path(tmp_path / "results.csv").read_text() == "of an earlier comparison"
