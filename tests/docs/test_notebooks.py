"""The notebooks run from top to bottom, as a person runs them, and are kept without outputs."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]


def read(path):
    return nbformat.read(path, as_version=4)


def code(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def test_both_are_there():
    assert NAMES == ["colab_tpu", "custom_step"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_outputs_are_not_kept(path):
    nbformat.validate(read(path))
    for cell in code(path):
        assert cell.outputs == [], "clear all outputs before you commit"
        assert cell.execution_count is None, "clear all outputs before you commit"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A function from a notebook to its cells with their outputs; each is run once."""
    done = {}

    def run(name):
        if name not in done:
            notebook = read(ROOT / "examples" / f"{name}.ipynb")
            folder = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("PYTHONPATH", str(ROOT))
                patch.setenv("IPYTHONDIR", str(folder / "ipython"))
                client = NotebookClient(
                    notebook,
                    timeout=None,
                    startup_timeout=600,  # a busy machine
                    resources={"metadata": {"path": str(folder)}},
                )
                client.execute()
            done[name] = [cell for cell in notebook.cells if cell.cell_type == "code"]
        return done[name]

    return run


def words(cell):
    """What a cell shows as text."""
    data = [output.get("data", {}) for output in cell.outputs]
    texts = [x.get("text/markdown") or x.get("text/plain", "") for x in data]
    return "\n".join([*texts, *(output.get("text", "") for output in cell.outputs)])


def pictures(cells):
    return [o for cell in cells for o in cell.outputs if "image/png" in o.get("data", {})]


@pytest.mark.full
def test_the_notebook_for_colab_trains_compares_and_draws(ran):
    cells = ran("colab_tpu")
    everything = "\n".join(map(words, cells))
    assert "accuracy" in everything
    assert "pcgrad" in everything
    assert len(pictures(cells)) == 2
    assert "mine.stablehlo" in words(cells[-1])


@pytest.mark.full
def test_the_notebook_with_a_step_of_ones_own_learns_with_five_seeds(ran):
    cells = ran("custom_step")
    accuracies = re.findall(r"seed \d: accuracy ([\d.]+)", "\n".join(map(words, cells)))
    assert len(accuracies) == 5
    assert min(map(float, accuracies)) > 0.5  # a tenth by chance
    assert len(pictures(cells)) == 1


def test_the_balancer_of_ones_own_has_at_most_15_lines():
    (cell,) = (
        cell.source
        for cell in code(ROOT / "examples/custom_step.ipynb")
        if "def equal_pull" in cell.source
    )
    function = cell.split("\n\n\n")[0]
    assert len([line for line in function.splitlines() if line.strip()]) <= 15
