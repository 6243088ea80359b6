"""A run folder in a bucket: uploaded so that it can be resumed at any time, by one run only."""

import contextlib
import json
import tarfile
import time

import fsspec
import pytest
from fsspec.registry import known_implementations

from mtljax.runs import bucket, bucket_copy, bucket_lock, staging
from mtljax.runs.bucket import Bucket
from mtljax.runs.staging import local_folder, refresh, staged

NEVER = 10**6
MIRROR = staging._Mirror


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """No uploads in the background, no waiting for a network, and no heartbeats."""
    monkeypatch.setattr(staging, "_Mirror", Mirror)
    monkeypatch.setattr(bucket, "WAITS", ())
    monkeypatch.setattr(bucket_lock, "HEARTBEAT", NEVER)
    monkeypatch.setattr(bucket_lock, "SILENCE", 0.1)
    monkeypatch.setattr(bucket_lock, "SETTLE", 0)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Function that continues the test on the machine of this name, with its own cache."""

    def use(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))

    use("first")
    return use


@pytest.fixture
def url(machine, monkeypatch):
    memory = fsspec.get_filesystem_class("memory")
    monkeypatch.setattr(memory, "store", {})
    monkeypatch.setattr(memory, "pseudo_dirs", [""])
    return "memory://bucket/run"


def contents(folder):
    """{path: bytes} of all files."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def write(folder, **files):
    """Writes text files; the keyword `checkpoints_7__arrays` is the file checkpoints/7/arrays."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("checkpoints_", "checkpoints/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def stored():
    names = list(fsspec.filesystem("memory").store)  # at once: a thread may write
    return {name.removeprefix("/bucket/run/") for name in names}


class Killed(BaseException):
    pass


class Mirror:
    """Replacement of the thread, with the copy and the lock of the context begun last."""

    last = None

    def __init__(self, copy, lock, url):
        self.copy, self.lock = copy, lock
        Mirror.last = self

    def end(self):
        pass


@contextlib.contextmanager
def killed(monkeypatch, copied):
    """Context at whose end nothing is uploaded or released, as if the process were killed."""

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch, contextlib.suppress(Killed), copied as folder:
        patch.setattr(staging, "_finish", die)
        yield folder


def upload(limit, url, change):
    """Opens the URL, changes the folder, and is killed after some uploads and deletions."""
    with pytest.MonkeyPatch.context() as patch:
        counted = Counted(patch, limit)
        with contextlib.suppress(Killed), staged(url) as folder:
            change(folder)
    return counted.names


def test_what_a_run_writes_is_there_on_another_machine(url, machine):
    with staged(url) as folder:
        assert contents(folder) == {}
        write(
            folder, config="{}", plots__a="png", checkpoints_7__arrays="7", checkpoints_7__d__x="x"
        )
        write(folder, **{".lock": "", "config.part": "x", "checkpoints_8.tmp__x": "incomplete"})
        place = folder.parents[1]
    assert stored() == {"config", "plots/a", "checkpoints/7.tar"}
    assert not place.exists()
    machine("second")
    with staged(url) as folder:
        assert contents(folder) == {
            "config": b"{}",
            "plots/a": b"png",
            "checkpoints/7/arrays": b"7",
            "checkpoints/7/d/x": b"x",
        }


def history(folder, step):
    """A run that has trained up to a step, saved it, and deleted the checkpoint before."""
    if not (folder / "config.json").exists():
        write(folder, **{"config.json": "{}"})
    write(folder, **{"metrics.jsonl": "".join(f"{i}\n" for i in range(1, step + 1))})
    write(folder, **{f"checkpoints/{step}__a": str(step), f"checkpoints/{step}__b": str(step)})
    for path in (folder / "checkpoints").iterdir():
        if path.name != str(step):
            for file in path.iterdir():
                file.unlink()
            path.rmdir()


class Counted:
    """Bucket operations that change it, which end by `Killed` after some."""

    def __init__(self, monkeypatch, limit):
        self.names = []
        for action in ("upload", "delete"):
            original = getattr(Bucket, action)

            def counting(bucket, *arguments, action=action, original=original):
                if len(self.names) == limit:
                    raise Killed
                self.names.append((action, arguments[-1]))
                original(bucket, *arguments)

            monkeypatch.setattr(Bucket, action, counting)


@pytest.mark.parametrize("limit", range(5))
def test_an_upload_that_is_killed_anywhere_leaves_a_run_to_resume(limit, url, machine):
    with staged(url) as folder:
        history(folder, 3)

    def finish(folder):
        history(folder, 5)
        write(folder, **{"result.json": "{}"})

    names = upload(limit, url, finish)
    assert len(names) == min(limit, 4)
    machine("second")
    with staged(url) as folder:
        found = contents(folder)
        steps = {int(path.name) for path in (folder / "checkpoints").iterdir()}
        assert steps in ({3}, {3, 5}, {5})
        for step in steps:
            assert found[f"checkpoints/{step}/a"] == found[f"checkpoints/{step}/b"] == b"%d" % step
        assert len(found["metrics.jsonl"].splitlines()) >= max(steps)
        assert "result.json" not in found or 5 in steps


def test_records_come_before_checkpoints_and_results_after_them(url):
    def finish(folder):
        history(folder, 3)
        write(folder, **{"result.json": "{}"})

    def go_on(folder):
        (folder / "result.json").rename(folder / "result-3.json")
        history(folder, 5)

    names = upload(NEVER, url, finish)
    assert {name for _, name in names[:2]} == {"config.json", "metrics.jsonl"}
    assert names[2:4] == [("upload", "checkpoints/3.tar"), ("upload", "result.json")]
    names = upload(NEVER, url, go_on)
    assert {name for _, name in names[:2]} == {"result-3.json", "metrics.jsonl"}
    assert names[2:5] == [
        ("delete", "result.json"),
        ("upload", "checkpoints/5.tar"),
        ("delete", "checkpoints/3.tar"),
    ]


def test_a_checkpoint_that_changes_while_it_is_read_is_not_uploaded(url, monkeypatch):
    add = tarfile.TarFile.add

    def add_and_delete(archive, name, *arguments, **options):
        add(archive, name, *arguments, **options)
        (folder / "checkpoints" / "3" / "b").unlink(missing_ok=True)

    with killed(monkeypatch, staged(url)) as folder:
        history(folder, 3)
        monkeypatch.setattr(tarfile.TarFile, "add", add_and_delete)
        with pytest.raises(bucket_copy.Changed):
            Mirror.last.copy.push(deletes=True)
    assert "metrics.jsonl" in stored()
    assert "checkpoints/3.tar" not in stored()


def test_a_checkpoint_stays_while_it_is_replaced(url):
    with staged(url) as folder:
        history(folder, 3)
    with staged(url) as folder:
        (folder / "checkpoints" / "3").rename(folder / "checkpoints" / "3.replaced")
    assert "checkpoints/3.tar" in stored()


def test_a_live_run_is_not_disturbed(url, machine, monkeypatch):
    monkeypatch.setattr(bucket_lock, "HEARTBEAT", 0.02)
    monkeypatch.setattr(bucket_lock, "SILENCE", 600)
    with staged(url) as folder:
        write(folder, a="first")
        with pytest.raises(ValueError, match="another run is writing to memory://"):
            staged(url).__enter__()
        machine("second")
        with pytest.raises(ValueError, match=r"another run \(on .*\) is writing to memory://"):
            staged(url).__enter__()
        machine("first")
    assert stored() == {"a"}


def test_a_run_whose_machine_is_lost_goes_on_elsewhere(url, machine, monkeypatch):
    with killed(monkeypatch, staged(url)) as folder:
        write(folder, a="uploaded")
        Mirror.last.copy.push(deletes=True)
        write(folder, a="not uploaded")
    assert ".lock" in stored()
    machine("second")
    with staged(url) as folder:
        assert contents(folder) == {"a": b"uploaded"}
        write(folder, a="second")
    machine("first")  # and its copy is not lost
    with staged(url) as folder:
        assert contents(folder) == {"a": b"second"}
        (kept,) = folder.parents[1].glob("run-*")
        assert (kept / "a").read_text() == "not uploaded"


def test_a_killed_run_goes_on_from_its_copy_on_the_same_machine(url, monkeypatch):
    with killed(monkeypatch, staged(url)) as folder:
        write(folder, a="not uploaded")
    with staged(url) as folder:
        assert contents(folder) == {"a": b"not uploaded"}
    assert stored() == {"a"}


def test_a_run_that_lost_its_lock_overwrites_nothing(url, machine, monkeypatch):
    def taken_over():
        with staged(url) as folder:
            write(folder, a="first")
            lock = Mirror.last.lock
            machine("second")
            with staged(url) as other:
                write(other, a="second")
                monkeypatch.setattr(bucket_lock, "HEARTBEAT", 0)
                lock._live()
                assert lock.is_lost

    with pytest.raises(ValueError, match="another run has taken over memory://"):
        taken_over()
    assert fsspec.filesystem("memory").cat_file("/bucket/run/a") == b"second"


@pytest.fixture
def network(monkeypatch):
    """Events `cut` and `mend`."""

    class Network:
        patch = pytest.MonkeyPatch()

        def cut(self):
            def fail(*_):
                raise TimeoutError("no route to host")

            self.patch.setattr(Bucket, "_upload", fail)

        def mend(self):
            self.patch.undo()

    network = Network()
    yield network
    network.mend()


def test_what_cannot_be_uploaded_is_kept_and_uploaded_by_the_next_run(url, network):
    folders = []

    def train():
        with staged(url) as folder:
            folders.append(folder)
            write(folder, a="1")
            network.cut()

    with pytest.raises(OSError, match="no route to host; all files are in") as error:
        train()
    assert str(folders[0].parents[1]) in error.value.strerror
    assert error.value.filename == url
    assert stored() == {".lock"}
    network.mend()
    with staged(url) as folder:
        assert contents(folder) == {"a": b"1"}
    assert stored() == {"a"}


def test_the_error_of_the_run_is_shown_besides_that_of_the_upload(url, network, capsys):
    def fail():
        with staged(url) as folder:
            write(folder, a="1")
            network.cut()
            raise ValueError("of the run")

    with pytest.raises(ValueError, match="of the run"):
        fail()
    line = capsys.readouterr().err
    assert line.startswith(
        f"mtljax: {url}: cannot write a to this URL: no route to host; all files are in"
    )


def test_changes_are_uploaded_while_a_run_goes_on(url, monkeypatch):
    monkeypatch.setattr(staging, "_Mirror", MIRROR)
    monkeypatch.setattr(staging, "INTERVAL", 0.01)
    with staged(url) as folder:
        for step in (3, 5):
            history(folder, step)
            end = time.monotonic() + 600
            while stored() != {".lock", "config.json", "metrics.jsonl", f"checkpoints/{step}.tar"}:
                assert time.monotonic() < end
                time.sleep(0.01)


def test_what_another_process_has_uploaded_below_a_folder_is_downloaded(url, machine):
    with staged(url) as folder:
        write(folder, members__a__mine="1")
        machine("second")
        for name in ("a", "b"):
            with staged(f"{url}/members/{name}") as other:
                history(other, 3)
        machine("first")
        refresh(folder / "members" / "a")
        found = contents(folder)
        assert found["members/a/checkpoints/3/a"] == b"3"
        assert found["members/a/mine"] == b"1"
        assert not (folder / "members" / "b").exists()
        refresh(folder.parent)  # outside of the copy
    assert {"members/a/mine", "members/a/checkpoints/3.tar", "members/b/metrics.jsonl"} <= stored()


def test_readers_download_what_has_changed_and_upload_what_they_add(url, machine, monkeypatch):
    with staged(url) as folder:
        history(folder, 3)
    downloads, download = [], Bucket.download
    monkeypatch.setattr(
        Bucket,
        "download",
        lambda self, name, to: (downloads.append(name), download(self, name, to)),
    )
    machine("second")
    with staged(url, writes=False) as folder:
        assert set(downloads) == {"config.json", "metrics.jsonl", "checkpoints/3.tar"}
        write(folder, prediction="4")
        (folder / "metrics.jsonl").unlink()  # never deleted in the bucket
    assert {"prediction", "metrics.jsonl"} <= stored()
    machine("first")
    with staged(url) as folder:
        history(folder, 5)
    machine("second")
    downloads.clear()
    found = contents(local_folder(url))
    assert set(downloads) == {"metrics.jsonl", "checkpoints/5.tar", "prediction"}
    assert found["checkpoints/5/a"] == b"5"
    assert "checkpoints/3/a" not in found
    downloads.clear()
    local_folder(url)
    assert downloads == []


def test_a_folder_that_another_program_has_uploaded_is_read_and_continued(url, machine):
    files = fsspec.filesystem("memory")
    for name, text in {"config.json": "{}", "checkpoints/3/a": "3", "checkpoints/3/b": "3"}.items():
        files.pipe_file(f"/bucket/run/{name}", text.encode())
    before = stored()
    with staged(url, writes=False) as folder:
        found = contents(folder)
        assert found == {"config.json": b"{}", "checkpoints/3/a": b"3", "checkpoints/3/b": b"3"}
    assert stored() == before
    names = upload(2, url, lambda folder: write(folder, **{"metrics.jsonl": "1"}))
    assert names == [("upload", "metrics.jsonl"), ("upload", "checkpoints/3.tar")]
    machine("second")  # with both forms in the bucket
    assert contents(local_folder(url)) == {**found, "metrics.jsonl": b"1"}
    with staged(url) as folder:
        history(folder, 5)
    assert "checkpoints/3.tar" not in stored()
    assert contents(local_folder(url))["checkpoints/5/a"] == b"5"


def test_a_url_without_a_run_is_refused(url):
    with pytest.raises(ValueError, match=f"no run folder {url}"):
        local_folder(url)


def test_files_outside_of_the_folder_are_not_written(url, machine, tmp_path):
    files = fsspec.filesystem("memory")
    for name in ("../outside", "a/../../outside", "/outside"):
        files.store[f"/bucket/run/{name}"] = files.open("/bucket/run/inside", "wb")
    files.pipe_file("/bucket/run/inside", b"x")
    assert contents(local_folder(url)) == {"inside": b"x"}
    assert not list(tmp_path.rglob("outside"))


def test_a_damaged_checkpoint_is_one_line(url):
    fsspec.filesystem("memory").pipe_file("/bucket/run/checkpoints/3.tar", b"no archive" * 99)
    with pytest.raises(ValueError, match=f"{url}/checkpoints/3.tar is damaged: "):
        local_folder(url)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(
        known_implementations, "clouds", {"class": "clouds_fs.Clouds", "err": "no clouds"}
    )
    with pytest.raises(
        ValueError, match="clouds://a/b needs another package: pip install clouds_fs"
    ):
        Bucket("clouds://a/b")
    with pytest.raises(ValueError, match="nowhere://a/b cannot be opened: Protocol not known"):
        Bucket("nowhere://a/b")


def test_a_url_that_cannot_be_written_is_refused_at_the_start(url, monkeypatch):
    def fail(*_, **__):
        raise PermissionError("access denied")

    monkeypatch.setattr(fsspec.filesystem("memory"), "pipe_file", fail, raising=False)
    with pytest.raises(ValueError, match=f"{url}: cannot write .lock to this URL: access denied"):
        staged(url).__enter__()


def test_the_lock_names_its_host(url):
    with staged(url):
        content = json.loads(fsspec.filesystem("memory").cat_file("/bucket/run/.lock"))
        assert content["host"]
