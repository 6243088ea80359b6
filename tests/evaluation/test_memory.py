"""Memory of prediction and evaluation does not grow with the number of files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.folders import write_table
from support.memory import peak_memory

from mtljax.config import Data, Experiment, to_json
from mtljax.main import main
from mtljax.tasks import Classification, Segmentation
from mtljax.utils.files import write_json

MOST = 1.1
"""Allowed ratio of the peaks for many files and for few."""
SIZES = {"predict": (64, 640), "evaluate": (320, 1280)}
"""Evaluation reads up to eight batches ahead: few files are several times as many."""


def make_folder(folder, tests):
    """A folder with 16 training and validation images and `tests` test images."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    for i in range(16 + tests):
        Image.fromarray(rng.integers(0, 256, (128, 160, 3), np.uint8)).save(
            folder / "images" / f"{i:04}.png", compress_level=1
        )
        Image.fromarray(rng.integers(0, 2, (128, 160), np.uint8)).save(folder / f"masks/{i}.png")
        split = "test" if i >= 16 else ("train", "validation")[i % 2]
        rows.append(
            {"image": f"{i:04}.png", "kind": i % 2, "mask": f"masks/{i}.png", "split": split}
        )
    write_table(folder, rows)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_peak_memory_does_not_depend_on_the_number_of_files(tmp_path):
    for size in {size for sizes in SIZES.values() for size in sizes}:
        make_folder(tmp_path / str(size), size)
    tasks = (
        Classification(name="kind", num_classes=2),
        Segmentation(name="mask", num_classes=2, decoder="linear"),
    )
    source = lambda size: f"folder:{str(tmp_path / str(size))!r},size=(128,128)"
    experiment = Experiment(
        name="memory",
        tasks=tasks,
        data=Data(source=source(64), batch_size=8),
        trunk="cnn:widths=(8,)",
        steps=1,
        eval_every=1,
        telemetry_every=0,
    )
    write_json(tmp_path / "config.json", to_json(experiment))
    run = tmp_path / "run"
    command = ["--experiment", str(tmp_path / "config.json"), "--workdir", str(run), "--quiet"]
    assert main(command) == 0

    def predict(size):
        images = sorted((tmp_path / str(size) / "images").iterdir())[16:]
        output = tmp_path / "out.json"
        return peak_memory("predict", "--run", run, "--output", output, "--overlay", *images)

    def evaluate(size):
        output = tmp_path / "out.json"
        return peak_memory("evaluate", "--run", run, "--source", source(size), "--output", output)

    for peak in (predict, evaluate):
        peak(64)  # fills the compile cache
        few, many = map(peak, SIZES[peak.__name__])
        print(f"{peak.__name__}: {few:.0f} MiB, {many:.0f} MiB for {SIZES[peak.__name__]} files")
        assert many <= MOST * few
