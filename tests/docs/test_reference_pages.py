"""The generated pages of the reference."""

import json
from pathlib import Path

import pytest

from mtljax.cli.verbs import VERBS
from mtljax.cli.verbs.merge import MergeFlags
from mtljax.config import Experiment

ROOT = Path(__file__).parents[2]
RUN = ROOT / "tests" / "fixtures" / "old_runs" / "finished" / "run"
pytestmark = pytest.mark.full


@pytest.fixture
def extension(monkeypatch):
    """A function from the name of a module of the extension to the module."""
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    return pytest.importorskip


def test_the_schemas_describe_the_files_of_a_run(extension):
    jsonschema = pytest.importorskip("jsonschema")
    for file, schema in extension("schemas").schemas().items():
        jsonschema.Draft202012Validator.check_schema(schema)
        text = (RUN / file).read_text()
        for document in text.splitlines() if file.endswith("jsonl") else [text]:
            jsonschema.validate(json.loads(document), schema)


def test_a_schema_refuses_a_value_of_another_type(extension):
    jsonschema = pytest.importorskip("jsonschema")
    result = json.loads((RUN / "result.json").read_text())
    schema = extension("schemas").schemas()["result.json"]
    for broken in ({**result, "best_step": "8"}, {k: result[k] for k in result if k != "test"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


def test_every_verb_and_every_field_of_an_experiment_is_on_the_pages_of_the_command_line(extension):
    pages = extension("command_line").pages()
    assert all(f"## {verb}\n" in pages["index.md"] for verb in VERBS)
    for name in MergeFlags.__dataclass_fields__:
        assert f"`--{name}" in pages["index.md"]
    for name in Experiment.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in pages["experiment.md"]
    assert "`--trunk` " not in pages["index.md"]


def test_a_message_is_listed_with_its_cause_and_place(extension):
    page = extension("errors").page()
    (line,) = [line for line in page.splitlines() if "missing --experiment NAME" in line]
    assert "The experiment is missing or unknown" in line
    assert "mtljax.cli.verbs.experiment.read_experiment" in line
    rows = [row for row in page.splitlines() if row.startswith("|")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {4}
