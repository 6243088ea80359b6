"""Watch of the other processes: who is named, when, and with which status a process ends."""

import json
import threading
import time

import pytest

from mtljax.utils import peers

TIMEOUT = 1.0
LIMIT = 30


class Store:
    """Keys and values of a coordination service."""

    def __init__(self):
        self.values, self.is_up = {}, True

    def key_value_set(self, key, value, allow_overwrite=False):
        if not self.is_up or (key in self.values and not allow_overwrite):
            raise RuntimeError
        self.values[key] = value

    def key_value_dir_get(self, folder):
        if not self.is_up:
            raise RuntimeError("Socket closed")
        return list(self.values.items())


@pytest.fixture
def ends(monkeypatch):
    """Exit statuses of the process, which does not end; the thread that ends it waits for ever."""
    statuses = []

    def end(status):
        statuses.append(status)
        if threading.current_thread() is threading.main_thread():
            raise SystemExit
        threading.Event().wait()

    monkeypatch.setattr(peers.os, "_exit", end)
    return statuses


@pytest.fixture
def started(ends):
    """Starts the watch of process 1 of 3; the others beat and make progress as the test says."""
    stop, watches = threading.Event(), []

    def start(store, alive=(0, 2), marks=lambda index: 0):
        def beat():
            for number in range(10**9):
                for index in alive:
                    message = json.dumps([number, marks(index)])
                    store.values[f"{peers.FOLDER}{index}"] = message
                if stop.wait(0.05):
                    return

        threading.Thread(target=beat, daemon=True).start()
        watches.append(peers.Watch(store, 1, 3, timeout=TIMEOUT))
        watches[0].start()
        return watches[0]

    yield start
    stop.set()
    for watch in watches:
        watch.stop()


def wait_for(ends):
    end = time.monotonic() + LIMIT
    while not ends and time.monotonic() < end:
        time.sleep(0.02)
    return ends[0]


def test_a_process_without_heartbeat_is_named(started, ends, capsys):
    started(Store(), alive=(0,))
    assert wait_for(ends) == peers.LOST == 75
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mtljax: process 2 of 3 did not respond for ")
    assert line.endswith(peers.REMEDY)


def test_a_process_that_others_wait_for_is_named(started, ends, capsys, monkeypatch):
    monkeypatch.setattr(peers, "_marks", 7)
    started(Store(), marks=lambda index: 7 - (index == 2))
    assert wait_for(ends) == peers.LOST
    assert "process 2 of 3 made no progress for " in capsys.readouterr().err


def test_processes_that_do_the_same_for_long_are_not_lost(started, ends, monkeypatch):
    monkeypatch.setattr(peers, "_marks", 7)
    started(Store(), marks=lambda index: 7)
    time.sleep(3 * TIMEOUT)
    assert not ends


def test_a_service_that_is_gone_means_process_0(started, ends, capsys):
    store = Store()
    started(store)
    time.sleep(0.5)
    store.is_up = False
    assert wait_for(ends) == peers.LOST
    assert "process 0 of 3 cannot be reached" in capsys.readouterr().err


def test_a_service_that_does_not_answer_means_process_0(started, ends, capsys, monkeypatch):
    store, blocked = Store(), threading.Event()
    monkeypatch.setattr(store, "key_value_dir_get", lambda folder: blocked.wait(LIMIT) and [])
    started(store)
    assert wait_for(ends) == peers.LOST
    blocked.set()
    assert "process 0 of 3 did not respond for " in capsys.readouterr().err


def test_the_failure_of_one_process_ends_all_with_its_status(started, ends, capsys):
    store = Store()
    started(store)
    failing = peers.Watch(store, 2, 3, timeout=TIMEOUT)
    with pytest.raises(SystemExit):
        failing.fail(2, "disk is full", output="mtljax: disk is full\n")
    assert ends.pop() == 2
    assert wait_for(ends) == 2
    own, others = capsys.readouterr().err.splitlines()
    assert own == "mtljax: disk is full"
    assert others == "mtljax: process 2 of 3 failed: disk is full"


def test_an_error_that_the_loss_of_a_process_causes_is_not_printed_as_well(started, ends, capsys):
    watch = started(Store(), alive=(0,))
    assert wait_for(ends) == peers.LOST
    late = threading.Thread(target=watch.fail, args=(1, "gloo"), kwargs={"output": "gloo\n"})
    late.daemon = True
    late.start()
    late.join(TIMEOUT)
    assert late.is_alive()
    assert ends == [peers.LOST]
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_first_verdict_counts(ends):
    store = Store()
    for status in (2, 1):
        with pytest.raises(SystemExit):
            peers.Watch(store, status, 3, timeout=TIMEOUT).fail(status, "broken")
    assert json.loads(store.values[peers.FOLDER + peers.VERDICT])[0] == 2


def test_a_process_ends_with_its_supervisor(started, ends, monkeypatch):
    monkeypatch.setenv(peers.PARENT, "1000000")
    started(Store())
    assert wait_for(ends) == peers.LOST
