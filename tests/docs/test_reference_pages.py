"""The generated pages of the reference."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtljax.cli.verbs import VERBS
from mtljax.config import Experiment
from mtljax.main import main

ROOT = Path(__file__).parents[2]
RUN = ROOT / "tests" / "fixtures" / "old_runs" / "finished" / "run"
pytestmark = pytest.mark.full


@pytest.fixture
def extension(monkeypatch):
    """A function from the name of a module of the extension to the module."""
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    return pytest.importorskip


def check(file, schema):
    """Validates a file; a file of lines line by line."""
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema)
    text = file.read_text()
    for document in text.splitlines() if file.suffix == ".jsonl" else [text]:
        jsonschema.validate(json.loads(document), schema)


def test_the_schemas_describe_the_files_of_an_old_run(extension):
    schemas = extension("schemas").schemas()
    for file in [*RUN.glob("*.json"), *RUN.glob("*.jsonl")]:
        check(file, schemas[file.name])


def test_every_json_file_in_a_run_folder_has_a_schema(extension, trained_run, tmp_path):
    schemas = extension("schemas").schemas()
    run = shutil.copytree(trained_run, tmp_path / "run")
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.zeros((9, 7), np.uint8)).save(photos / "1.png")
    (photos / "2.png").write_text("no image")
    assert main(["evaluate", "--run", str(run), "--calibrate", "--attack", "fgsm"]) == 0
    assert main(["predict", "--run", str(run), str(photos)]) == 2  # one file is unreadable
    found = [*run.glob("*.json"), *run.glob("*.jsonl")]
    names = {file: re.sub(r"^evaluation-.*", "evaluation-SPLIT.json", file.name) for file in found}
    assert set(names.values()) == schemas.keys() - {"points.json"}
    for file, name in names.items():
        check(file, schemas[name])
    content = json.loads((run / "predictions.json").read_text())
    assert [entry.keys() & {"error", "size"} for entry in content] == [{"size"}, {"error"}]


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
    for name in Experiment.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in pages["experiment.md"]
    assert "`--trunk` " not in pages["index.md"]


def test_every_flag_in_the_help_of_a_verb_is_on_the_pages(extension, capsys):
    pages = extension("command_line").pages()
    for verb in VERBS:
        section = pages["index.md"].partition(f"## {verb}\n")[2].partition("\n(verb-")[0]
        shown = set(re.findall(r"--[a-z][\w.-]*", section + pages["experiment.md"]))
        with pytest.raises(SystemExit, match="^0$"):
            main([verb, "--help"])
        flags = re.findall(r"^[│ ]*(?:-\w, )?(--[a-z][\w.-]*)", capsys.readouterr().out, re.M)
        assert flags
        assert set(flags) - {"--help"} <= shown, verb


def test_a_message_is_listed_with_its_cause_and_place(extension):
    page = extension("errors").page()
    (line,) = [line for line in page.splitlines() if "missing --experiment NAME" in line]
    assert "The experiment is missing or unknown" in line
    assert "mtljax.cli.verbs.experiment.read_experiment" in line
    rows = [row for row in page.splitlines() if row.startswith("|")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {4}
    assert not [row for row in rows if re.search(r"\| +\| \{py:obj\}", row)]
