"""Ray: runs as tasks of a cluster (Moritz et al. 2018, arXiv 1712.05889)."""

import contextlib
import dataclasses
import functools
import logging
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

from mtljax.comparison.engines.base import Resources, TrainAll, Work, check_counts
from mtljax.comparison.engines.dispatch import Lost, dispatch
from mtljax.comparison.engines.tasks import require_portable
from mtljax.comparison.engines.worker import Report, train_task
from mtljax.utils.optional import require
from mtljax.utils.text import count, first_line, quoted

CONNECT_SECONDS = 10.0
"""Time within which the address must accept a connection."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # sends nothing
    "RAY_DEDUP_LOGS_SKIP_REGEX": "died or was killed",  # this package reports it in one line
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # its new behavior, without a warning
}
"""Environment variables of Ray, unless the user has set them."""
OF_ADDRESS = {"RAY_NUM_REDIS_GET_RETRIES": "1"}
"""Likewise with an address: if something other than Ray listens there, one attempt takes 40 s."""
OBJECT_STORE = 10**8
"""Bytes of shared memory of a cluster that is started here; tasks return a few bytes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ray:
    """A Ray cluster: each run is a task with CPUs and GPUs, started again if its worker is killed.

    Needs `pip install 'mtljax[cluster]'` on all nodes, and a --workdir that all nodes share.
    """

    address: str = "local"
    """local: a cluster on this machine, for this command; auto: the running cluster that this
    machine belongs to; or HOST:6379."""
    cpus: int = 1
    """CPUs of each run, and number of its threads."""
    gpus: int = 0
    """GPUs of each run; 0: it is trained on CPU."""
    retries: int = 3
    """Number of times that a run whose worker was killed starts again without a new checkpoint in
    between."""
    autoscaling: bool = False
    """The cluster starts nodes on request, so do not check that one has the CPUs and GPUs."""

    def __post_init__(self) -> None:
        check_counts(cpus=(self.cpus, 1), gpus=(self.gpus, 0), retries=(self.retries, 0))

    @property
    def resources(self) -> Resources:
        """Resources of each run."""
        return Resources(self.cpus, self.gpus)

    @contextlib.contextmanager
    def open(self, work: Work) -> Iterator[TrainAll]:
        """Connects to the cluster, or starts one."""
        require_portable(work, "ray")
        given = ENVIRONMENT if self.address == "local" else ENVIRONMENT | OF_ADDRESS
        for name, value in given.items():  # read when it is imported
            os.environ.setdefault(name, value)
        ray = require("ray", "cluster", "--engine ray")
        with contextlib.ExitStack() as stack:
            if not ray.is_initialized():  # else a notebook has connected
                stack.enter_context(_restored_sigterm())
                self._connect(ray)
                stack.callback(ray.shutdown)
            if not self.autoscaling:
                self._require_node(ray.nodes())
            cluster = _RayCluster(ray, self)
            nodes = count(sum(node["Alive"] for node in ray.nodes()), "node")
            work.progress.note(f"engine ray: {nodes}, {self.resources.text} each")
            yield functools.partial(dispatch, cluster, work)

    def _connect(self, ray: Any) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address == "local":
            options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
        elif self.address != "auto":
            _require_listening(self.address)
        try:
            ray.init(address=self.address, **options)
        except Exception as error:  # Ray has no common type
            if self.address == "auto":
                raise ValueError(
                    "--engine ray: no cluster is running on this machine; start one by `ray start "
                    "--head`, or give address=HOST:6379"
                ) from error
            raise ValueError(
                f"--engine ray: no cluster at address {self.address}: {first_line(error)}; check "
                "the address, that the versions of Ray and Python are equal, and set "
                "RAY_AUTH_MODE=token if the cluster asks for its token"
            ) from error

    def _require_node(self, nodes: list[dict[str, Any]]) -> None:
        """Raises ValueError if no node has the resources of one run."""
        totals = [node["Resources"] for node in nodes if node["Alive"]]
        sizes = {Resources(*(int(total.get(x, 0)) for x in ("CPU", "GPU"))) for total in totals}
        if not any(size.cpus >= self.cpus and size.gpus >= self.gpus for size in sizes):
            has = " or ".join(size.text for size in sorted(sizes))
            larger = ", or add autoscaling=true if the cluster starts larger nodes on request"
            raise ValueError(
                f"--engine ray: a run needs {self.resources.text}, but the nodes have {has}; lower "
                f"cpus or gpus{larger * (self.address != 'local')}"
            )


class _RayCluster:
    """Connection to a Ray cluster; a job is the reference to a task's result."""

    slots: int | None = None

    def __init__(self, ray: Any, engine: Ray):
        self.retries, self._ray, self._resources = engine.retries, ray, engine.resources
        # Retries are counted by `dispatch`, which prints them.
        remote = ray.remote(num_cpus=engine.cpus, num_gpus=engine.gpus, max_retries=0)
        self._function = remote(train_task)

    def submit(self, message: dict[str, Any]) -> Any:
        return self._function.remote(message, self._resources)

    def wait(self, jobs: list[Any], seconds: float) -> list[Any]:
        return self._ray.wait(jobs, timeout=seconds)[0] if jobs else []

    def report(self, job: Any) -> Report:
        errors = self._ray.exceptions
        try:
            return self._ray.get(job)
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:
            reason = (str(error).strip().splitlines() or ["unknown"])[-1]
            raise RuntimeError(f"the worker cannot run it: {reason}") from error
        except errors.RayError as error:
            raise Lost(f"its worker was lost ({type(error).__name__})") from error

    def cancel(self, job: Any) -> None:
        self._ray.cancel(job, force=False)


def _require_listening(address: str) -> None:
    """Raises ValueError unless a process accepts connections at an address."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"--engine ray: address must be local, auto or HOST:6379, not {quoted(address)}"
        )
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ValueError(
            f"--engine ray: no cluster at address {address}: {error.strerror or error}; check the "
            "address, and that the port can be reached from here"
        ) from None


@contextlib.contextmanager
def _restored_sigterm() -> Iterator[None]:
    """Context after which SIGTERM is handled as before, which `ray.init` changes."""
    previous = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, previous)
