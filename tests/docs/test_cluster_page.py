"""Scripts of the page on clusters: their syntax, and the statuses after which they start again."""

import re
from pathlib import Path

import pytest
import yaml
from support.cli import run

from mtljax.main import main
from mtljax.utils.peers import LOST

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


@pytest.mark.parametrize("number", range(3))
def test_shell_scripts_have_the_right_syntax(number):
    done = run(["bash", "-n", "-c", blocks("bash")[number]])
    assert (done.returncode, done.stderr) == (0, "")


def test_the_slurm_script_asks_for_a_signal_and_a_requeue_first():
    script = blocks("bash")[1]
    directives, _, commands = script.partition("\nsrun ")
    assert {"#SBATCH --requeue", "#SBATCH --signal=TERM@300"} <= set(directives.splitlines())
    assert "#SBATCH" not in commands  # Slurm reads none after the first command
    tasks, gpus = (re.search(rf"--{x}-per-node=(\d+)", directives)[1] for x in ("ntasks", "gpus"))
    assert tasks == gpus  # jax.distributed gives each task one GPU


@pytest.mark.parametrize(
    ("status", "again"), [(0, 0), (1, 0), (2, 0), (LOST, 1), (143, 1), (137, 1)]
)
def test_the_slurm_script_requeues_what_can_be_resumed(status, again, tmp_path):
    for name, code in {"srun": f"exit {status}", "scontrol": "echo $* >> queued"}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{code}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/bin:/usr/bin", "HOME": "/", "SLURM_JOB_ID": "7"}
    done = run(["bash", "-c", blocks("bash")[1]], cwd=tmp_path, env=environment)
    assert done.returncode == (0 if again else status)
    assert (tmp_path / "queued").exists() == again


def test_the_jobset_starts_again_what_can_be_resumed():
    (manifest,) = map(yaml.safe_load, blocks("yaml"))
    assert (manifest["kind"], manifest["apiVersion"]) == ("JobSet", "jobset.x-k8s.io/v1alpha2")
    (job,) = manifest["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [1, 2])
    assert rule["onExitCodes"]["containerName"] == container["name"]
    (policy,) = manifest["spec"]["failurePolicy"]["rules"]
    assert (policy["action"], policy["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    flags = dict(flag.split("=") for flag in container["args"][3:])
    name = manifest["metadata"]["name"]
    assert flags["--coordinator"].startswith(f"{name}-{job['name']}-0-0.{name}:")
    assert int(flags["--num-processes"]) == spec["parallelism"] == spec["completions"]


def test_the_flags_of_the_jobset_are_read(monkeypatch, tmp_path):
    (manifest,) = map(yaml.safe_load, blocks("yaml"))
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    shell = [*container["command"][:2], container["command"][2].replace("exec", "echo"), "sh"]
    command = run([*shell, *container["args"]], env={"JOB_COMPLETION_INDEX": "1", "PATH": "/bin"})
    python, *arguments = command.stdout.split()
    assert (python, arguments[:2]) == ("python", ["-m", "mtljax.main"])
    joined = []
    monkeypatch.setattr(
        "mtljax.cli.distributed.run_joined", lambda run, *a, **k: joined.append(a) or 0
    )
    assert main(arguments[2:]) == 0
    assert joined == [("digits-train-0-0.digits:1234", 2, 1)]


def test_the_script_for_ray_is_python():
    (script,) = blocks("python")
    compile(script, "train_on_ray.py", "exec")
