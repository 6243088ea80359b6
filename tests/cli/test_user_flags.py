"""Each family of verbs in processes of its own, compiled as for users: see `user_flags`."""

import json

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from PIL import Image
from support.cli import SMALL, finish, start
from support.tiers import full_except

from mtljax.cli.verbs import VERBS

QUICK = (*SMALL, "--steps", "4", "--eval-every", "2", "--quiet")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def call(cache, tmp_path, user_flags):
    """A function that runs a command in `tmp_path` and returns its output."""

    def run(*arguments):
        status, out, err = finish(start(*map(str, arguments), cache=cache, cwd=tmp_path))
        assert (status, err) == (0, "")
        return out

    return run


def train(call, folder):
    call(*QUICK, "--workdir", "run")
    result = json.loads((folder / "run" / "result.json").read_text())
    assert result["steps"] == 4
    assert (folder / "run" / "report.html").exists()


def use_run(call, folder):
    train(call, folder)
    call("evaluate", "--run", "run")
    evaluated = json.loads((folder / "run" / "evaluation-test.json").read_text())
    assert evaluated["step"] in (2, 4)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "black.png")
    assert "black.png" in call("predict", "--run", "run", "black.png")
    call("export", "--run", "run", "--to", "stablehlo", "--output", "exported")
    assert list(folder.glob("exported*"))


def compare(call, folder):
    call("compare", *QUICK, "--balancers", "pcgrad", "--seeds", "2", "--workdir", "compared")
    assert (folder / "compared" / "results.csv").exists()
    call("front", *QUICK, "--method", "epo", "--rays", "2", "--seeds", "1", "--workdir", "front")
    assert (folder / "front" / "hypervolume.csv").exists()


def search(call, folder):
    pytest.importorskip("optuna")
    call("search", *QUICK, "--space", "learning_rate=uniform(1e-3,1e-2)", "--trials", "2",
         "--finalists", "1", "--seeds", "1", "--workdir", "searched")  # fmt: skip
    call("--experiment", "searched/best.json", "--workdir", "best", "--quiet")
    assert (folder / "best" / "result.json").exists()
    call("compare", *QUICK, "--tune", "1", "--seeds", "1", "--workdir", "tuned")
    assert "learning_rate=" in (folder / "tuned" / "results.md").read_text()


def merge(call, folder):
    call("compare", *QUICK, "--seeds", "1", "--workdir", "compared")
    runs = sorted((folder / "compared" / "members").glob("ew-*/seed-*"))
    single = [run for run in runs if "-digit-value-" not in str(run)]
    assert len(single) == 2
    call("merge", "--runs", *single, "--method", "average", "--quiet", "--workdir", "merged")
    result = json.loads((folder / "merged" / "result.json").read_text())
    assert set(result["test"]) == {"digit", "value"}


def data(call, folder):
    assert "digit" in call("data", "--experiment", "digits", "--output", "data.html")


def security(call, folder):
    (folder / "weights").write_bytes(b"weights")
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(private)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pub").write_bytes(public)
    call("sign", "--file", "weights", "--key", "key.pem")
    assert "is valid" in call("verify", "--file", "weights", "--key", "key.pub")


def listing(call, folder):
    assert "pcgrad" in call("list", "balancers")


FAMILIES = {
    f.__name__: f for f in (train, use_run, compare, search, merge, data, security, listing)
}


def test_every_family_of_verbs_is_here():
    assert set(FAMILIES) == {verb.module for verb in VERBS.values()}


@pytest.mark.parametrize("family", full_except(["train"], FAMILIES))
def test_a_family_of_verbs_works(family, call, tmp_path):
    FAMILIES[family](call, tmp_path)
