"""Keys: what may be given, where, and that nobody without them reads anything."""

import shutil
import sys

import numpy as np
import pyrage
import pytest
from support.cli import run

from mtljax.runs.encryption import Keys, parse_keys, read_keys

PLAIN = np.random.default_rng(0).bytes(200_000)  # more than one of age's chunks of 64 KiB

needs_age = pytest.mark.skipif(not shutil.which("age"), reason="the program `age` is not installed")


@pytest.fixture(scope="module")
def identity():
    return pyrage.x25519.Identity.generate()


def key_file(identity):
    """What age-keygen writes."""
    return f"# created: now\n# public key: {identity.to_public()}\n{identity}\n"


def test_a_key_file_encrypts_and_decrypts(identity, tmp_path):
    path = tmp_path / "key.txt"
    path.write_text(key_file(identity))
    keys = read_keys({"MTLJAX_KEY_FILE": str(path)})
    encrypted = keys.encrypt(PLAIN)
    assert PLAIN[:32] not in encrypted
    assert keys.decrypt(encrypted, "it") == PLAIN


def test_the_same_key_in_the_environment(identity):
    keys = read_keys({"MTLJAX_KEY": str(identity)})
    assert keys.decrypt(keys.encrypt(PLAIN), "it") == PLAIN


def test_each_of_several_recipients_can_read(identity):
    other = pyrage.x25519.Identity.generate()
    writer = parse_keys(f"{identity.to_public()} {other.to_public()}", "KEY")
    encrypted = writer.encrypt(PLAIN)
    for owner in (identity, other):
        assert parse_keys(str(owner), "KEY").decrypt(encrypted, "it") == PLAIN
    with pytest.raises(ValueError, match="it is encrypted and no secret key is set"):
        writer.decrypt(encrypted, "it")


def test_who_has_public_keys_only_can_read_what_the_same_process_wrote(identity):
    keys = parse_keys(str(identity.to_public()), "KEY").for_this_process()
    encrypted = keys.encrypt(PLAIN)
    assert keys.decrypt(encrypted, "it") == PLAIN
    assert parse_keys(str(identity), "KEY").decrypt(encrypted, "it") == PLAIN


@pytest.mark.full
def test_a_passphrase():
    keys = read_keys({"MTLJAX_PASSPHRASE": "correct horse"})
    encrypted = keys.encrypt(b"plain")
    assert keys.decrypt(encrypted, "it") == b"plain"


@pytest.mark.slow  # as guessing should be
def test_another_passphrase_is_refused():
    encrypted = Keys(passphrase="correct horse").encrypt(b"plain")
    with pytest.raises(ValueError, match="it cannot be decrypted: it is damaged, or the key in"):
        Keys(passphrase="wrong horse").decrypt(encrypted, "it")


def test_another_key_is_refused(identity):
    encrypted = parse_keys(str(identity), "KEY").encrypt(PLAIN)
    other = parse_keys(str(pyrage.x25519.Identity.generate()), "KEY")
    with pytest.raises(ValueError, match="it cannot be decrypted") as error:
        other.decrypt(encrypted, "it")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "no key to encrypt or decrypt with: set MTLJAX_KEY_FILE"),
        ({"MTLJAX_KEY": ""}, "no key to encrypt"),
        ({"MTLJAX_KEY": "x", "MTLJAX_PASSPHRASE": "y"}, "MTLJAX_KEY and MTLJAX_PASSPHRASE are"),
        ({"MTLJAX_KEY": "geheim123"}, "MTLJAX_KEY: word 1 is not an age key"),
        ({"MTLJAX_KEY": "AGE-SECRET-KEY-1GEHEIM123"}, "word 1 is not an age key"),
        ({"MTLJAX_KEY": "age1geheim123"}, "word 1 is not an age key"),
        ({"MTLJAX_KEY": "# nothing"}, "contains no key"),
        ({"MTLJAX_KEY_FILE": "/nowhere"}, "MTLJAX_KEY_FILE=/nowhere cannot be read: No such file"),
    ],
)
def test_what_is_no_key_is_refused_without_showing_it(environment, reason):
    with pytest.raises(ValueError, match=reason) as error:
        read_keys(environment)
    assert "\n" not in str(error.value)
    assert "geheim" not in str(error.value).lower()


def test_keys_are_not_shown_when_printed():
    assert "horse" not in repr(Keys(passphrase="correct horse"))


@needs_age
def test_the_program_age_opens_what_is_encrypted_for_a_key(identity, tmp_path):
    (tmp_path / "key.txt").write_text(key_file(identity))
    (tmp_path / "it.age").write_bytes(parse_keys(str(identity.to_public()), "KEY").encrypt(PLAIN))
    age = ["age", "--decrypt", "-i", tmp_path / "key.txt", tmp_path / "it.age"]
    opened = run(age, text=False)
    assert opened.returncode == 0, opened.stderr
    assert opened.stdout == PLAIN


@needs_age
def test_what_the_program_age_encrypts_is_opened(identity):
    encrypted = run(["age", "-r", identity.to_public()], input=PLAIN, text=False)
    assert encrypted.returncode == 0, encrypted.stderr
    assert parse_keys(str(identity), "KEY").decrypt(encrypted.stdout, "it") == PLAIN


@needs_age
@pytest.mark.slow
def test_the_program_age_opens_what_is_encrypted_with_a_passphrase(tmp_path):
    (tmp_path / "it.age").write_bytes(Keys(passphrase="correct horse").encrypt(PLAIN))
    # age asks for the passphrase on the terminal, so it gets one of its own.
    on_a_terminal = [sys.executable, "-c", "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]))"]
    age = ["age", "--decrypt", "-o", tmp_path / "opened", tmp_path / "it.age"]
    done = run(on_a_terminal + age, input="correct horse\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "opened").read_bytes() == PLAIN
