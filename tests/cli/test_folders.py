"""Folders of the command line that are URLs."""

import json
import signal

import fsspec
import pytest
from support.cli import SMALL, TRAINED, finish, start, wait_until
from support.same_run import assert_the_same_run

from mtljax.main import main
from mtljax.runs.staging import local_folder

FLAGS = (*SMALL, "--steps", "400", "--log-every", "10", "--eval-every", "20", "--quiet")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def url(monkeypatch):
    memory = fsspec.get_filesystem_class("memory")
    monkeypatch.setattr(memory, "store", {})
    monkeypatch.setattr(memory, "pseudo_dirs", [""])
    return "memory://bucket/run"


def test_a_run_in_a_bucket_is_the_run_of_a_folder(url, trained_run, capsys):
    assert main([*TRAINED, "--workdir", url]) == 0
    assert f"report: {url}/report.html\n" in capsys.readouterr().out
    assert_the_same_run(local_folder(url), trained_run)
    assert main([*TRAINED, f"--workdir={url}"]) == 0
    assert f"{url} is finished already" in capsys.readouterr().out
    assert main([*TRAINED, "--workdir", url, "--steps", "5"]) == 2
    assert f"mtljax: {url} holds a run with steps=7, not 5" in capsys.readouterr().err


@pytest.mark.full
def test_a_run_in_a_bucket_can_be_used(url, trained_run, capsys, tmp_path):
    files = fsspec.filesystem("memory")
    assert main([*TRAINED, "--workdir", url, "--quiet"]) == 0
    for flags in (("evaluate", "--run", url), ("export", "--run", url, "--to", "safetensors")):
        assert main([*flags]) == 0
        assert f"written to {url}/" in capsys.readouterr().out
    names = {name.removeprefix("/bucket/run/") for name in files.find("/bucket/run")}
    assert {"evaluation-test.json", "digits.safetensors", "checkpoints/7.tar"} <= names
    evaluated = json.loads(files.cat_file("/bucket/run/evaluation-test.json"))
    result = json.loads((trained_run / "result.json").read_text())
    assert evaluated["step"] == result["best_step"]
    # Its configuration and its weights are the start of another run.
    more = ["--experiment", f"{url}/config.json", "--init", url, "--steps", "2", "--quiet"]
    assert main([*more, "--workdir", str(tmp_path / "more")]) == 0
    config = json.loads((tmp_path / "more" / "config.json").read_text())
    assert config["init"] == url


@pytest.mark.full
def test_a_comparison_in_a_bucket_is_that_of_a_folder(url, tmp_path):
    flags = ["compare", *SMALL, "--steps", "4", "--eval-every", "2", "--seeds", "1", "--quiet"]
    assert main([*flags, "--workdir", str(tmp_path / "local")]) == 0
    assert main([*flags, "--workdir", url]) == 0
    local = {path.name for path in (tmp_path / "local").iterdir()}
    copy = local_folder(url)
    assert {path.name for path in copy.iterdir()} == local
    assert (copy / "results.csv").read_text() == (tmp_path / "local" / "results.csv").read_text()


@pytest.mark.full
def test_a_run_that_is_killed_goes_on_on_another_machine(tmp_path):
    url, bucket = f"file://{tmp_path}/bucket/run", tmp_path / "bucket" / "run"

    def launch(workdir, machine):
        cache = {
            "cache": tmp_path / "xla",
            "variables": {"XDG_CACHE_HOME": str(tmp_path / machine)},
        }
        return start(*FLAGS, "--workdir", workdir, **cache)

    assert finish(launch(tmp_path / "undisturbed", "any")) == (0, "", "")
    saved = set()
    for machine in ("first", "second"):
        process = launch(url, machine)
        wait_until(lambda: set(bucket.glob("checkpoints/*.tar")) - saved, process)  # noqa: B023
        process.kill()
        assert finish(process)[0] in (-signal.SIGKILL, 0)
        saved = set(bucket.glob("checkpoints/*.tar"))
        (bucket / ".lock").unlink(missing_ok=True)  # no need to wait: the owner is dead
    assert finish(launch(url, "third")) == (0, "", "")
    assert_the_same_run(local_folder(url), tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("train", "--coordinator", "a:1"), "several processes write the parts of a checkpoint"),
        (("search",), "the study is a database, which cannot be in a bucket; add --storage"),
        (("compare", "--tune", "20"), "the studies of --tune are databases"),
        (("compare", "--engine", "slurm:cpus=2"), "--engine slurm needs a folder that all nodes"),
    ],
)
def test_what_a_bucket_cannot_do_is_refused_before_anything_is_written(flags, words, url, capsys):
    assert main([*flags, "--experiment", "digits", "--workdir", url]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"mtljax: --workdir {url}: ")
    assert words in err
    assert not fsspec.filesystem("memory").exists("/bucket")


@pytest.mark.parametrize("verb", ["evaluate", "predict", "verify"])
def test_a_url_without_a_run_is_one_line(verb, url, capsys):
    assert main([verb, "--run", url]) == 2
    assert capsys.readouterr().err == (
        f"mtljax: no run folder {url}: there is no file below this URL\n"
    )
