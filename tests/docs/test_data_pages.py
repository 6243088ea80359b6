"""The pages on a user's own data, followed by somebody with an empty folder."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from support import pages
from support.cli import run
from support.examples import is_generated

from mtljax.config import find_experiment
from mtljax.tasks import TASKS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A function from a page to a folder with its data and experiments."""
    done = {}

    def prepare(name):
        if name not in done:
            done[name] = tmp_path_factory.mktemp(name)
            pages.prepare(name, done[name])
        return done[name]

    return prepare


def follow(name, folder, are_wanted):
    """Runs the commands of a page, shortly, and compares what they print with what is shown."""
    printed = ""
    for language, content in pages.steps(name):
        if language == "bash":
            printed = ""
            for arguments in filter(are_wanted, pages.commands(content)):
                few = pages.FEW * pages.trains(arguments)
                status, text = pages.call([*arguments, *few], folder)
                assert status == 0, text
                printed += text
        elif language == "text" and printed:
            assert pages.shows(printed, content), printed


@pytest.mark.parametrize("name", pages.NAMES)
def test_the_summary_of_the_data_is_the_one_shown(name, prepared):
    folder = prepared(name)
    follow(name, folder, lambda arguments: arguments[0] == "data")
    assert list(folder.glob("runs/data-*/samples.png"))


@pytest.mark.full
@pytest.mark.parametrize("name", pages.NAMES)
def test_a_page_can_be_followed_from_top_to_bottom(name, prepared):
    folder = prepared(name)
    follow(name, folder, lambda arguments: True)
    assert list(folder.glob("runs/*/report.html"))
    assert list(folder.glob("runs/*/predictions.json"))


LEARNED = {  # Page -> {metric of the test split: bound}; chance or the constant is in the comment.
    "my_data": {
        "shape/accuracy": ">0.7",  # 1/3
        "size/mae": "<2.0",  # 2.75
        "mask/miou": ">0.8",
    },
    "class_folders": {"shape/accuracy": ">0.8"},  # 0.31
    "coco": {"boxes/map": ">0.6", "present/map": ">0.8"},  # 0, 0.5
    "masks": {"mask/miou": ">0.7"},  # 0.30
    "several_data_sets": {"shape/accuracy": ">0.8", "size/mae": "<0.8"},  # 0.47, 1.37
}


@pytest.mark.slow
@pytest.mark.parametrize("name", pages.NAMES)
def test_the_network_learns_the_tasks(name, tmp_path):
    """The page as it stands, by a newcomer's own commands."""
    pages.prepare(name, tmp_path)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for language, content in pages.steps(name):
        for arguments in pages.commands(content) if language == "bash" else ():
            command = [sys.executable, "-m", "mtljax.main", *arguments]
            done = run(command, cwd=tmp_path, env=environment)
            assert done.returncode == 0, done.stderr
    test = {
        f"{task}/{metric}": value
        for path in tmp_path.glob("runs/*/result.json")
        for task, metrics in json.loads(path.read_text())["test"].items()
        for metric, value in metrics.items()
    }
    for metric, bound in LEARNED[name].items():
        limit = float(bound[1:])
        assert test[metric] > limit if bound[0] == ">" else test[metric] < limit, metric


def edit(path, old, new):
    """Replaces text in a file, which contains it."""
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


def edit_json(path, change):
    """Changes the content of a JSON file in place."""
    content = json.loads(Path(path).read_text())
    change(content)
    Path(path).write_text(json.dumps(content))


def resized(path, size):
    Image.open(path).resize(size).save(path)


def repaint(names, change):
    """Changes masks of cells."""
    for path in Path("cells/masks").glob(f"{names}.png"):
        change(Image.open(path)).save(path)


def spoil_boxes(content):
    first, second, third = content["annotations"][:3]
    first["bbox"][0] = -3
    second["bbox"][2] = 0
    third["iscrowd"] = 1


def to_corners(content):
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x, y, x + width, y + height]


MISTAKES = {
    "my_data": [
        lambda: edit("my_data/labels.csv", "\n005.png,circle", "\n005.png,cirle"),
        lambda: Path("my_data/images/005.png").unlink(),
        lambda: edit("my_data/labels.csv", "image,shape,size", "image,shape,width"),
        lambda: edit("my_data/labels.csv", "\n005.png,circle,8,masks/005.png", ""),
    ],
    "class_folders": [
        lambda: shutil.move("shapes/val/triangle", "shapes/val/triangles"),
        lambda: shutil.move("shapes/val", "shapes/holdout"),
        lambda: [
            shutil.move(f"shapes/{split}", f"shapes/data/{split}") for split in ("train", "val")
        ],
        lambda: Path("shapes/train/circle/007.png").write_text("no image"),
        lambda: (
            edit("shapes.py", ",size=(32,32)", ""),
            resized("shapes/train/circle/003.png", (50, 40)),
        ),
    ],
    "coco": [
        lambda: edit_json("objects/train.json", spoil_boxes),
        lambda: edit_json("objects/train.json", to_corners),
        lambda: edit("objects.py", 'name="boxes"', 'name="boxes", class_names=("cirle",)'),
        lambda: shutil.move("objects/images", "pictures"),
        lambda: shutil.copy("objects/train.json", "objects/old_train.json"),
        lambda: edit_json("objects/train.json", lambda c: c["images"][3].update(width=64)),
    ],
    "masks": [
        lambda: edit("cells.py", "            values=(0, 128, 255),\n", ""),
        lambda: (
            edit("cells.py", "            values=(0, 128, 255),\n", ""),
            repaint("*", lambda mask: mask.point(lambda value: 255 if value else 0)),
        ),
        lambda: repaint("003", lambda mask: ImageOps.colorize(mask, "black", "red")),
        lambda: repaint("003", lambda mask: mask.resize((24, 24), Image.Resampling.NEAREST)),
        lambda: Path("cells/masks/007.png").unlink(),
        lambda: edit("cells.py", "(0, 128, 255)", "(0, 128, 256)"),
    ],
    "several_data_sets": [
        lambda: shutil.move("photos/circle", "photos/disc"),
        lambda: edit("both.py", "drawings/size", "size"),
        lambda: edit("drawings/labels.csv", "image,class,size", "image,shape,size"),
        lambda: edit("both.py", "drawings/size", "drawing/size"),
        lambda: (
            edit("both.py", ",size=(32,32)", ""),
            [resized(path, (40, 40)) for path in Path("photos").glob("*/*.png")],
        ),
    ],
}
"""Page -> what makes each of its mistakes, in a folder with its data."""


@pytest.mark.parametrize("name", pages.NAMES)
def test_the_messages_of_mistakes_are_those_shown(name, prepared, tmp_path, monkeypatch):
    shown = pages.messages(name)
    assert len(shown) == len(MISTAKES[name])
    experiments = prepared(name).glob("*.py")
    experiment = next((file.name for file in experiments), name)
    for i, (message, make) in enumerate(zip(shown, MISTAKES[name], strict=True)):
        folder = tmp_path / str(i)
        shutil.copytree(prepared(name), folder, ignore=shutil.ignore_patterns("runs"))
        monkeypatch.chdir(folder)
        make()
        _, text = pages.call(["data", "--experiment", experiment], folder)
        assert pages.shows(text, message), text


@pytest.mark.full
def test_the_gaps_are_reported(prepared):
    folder = prepared("my_data")
    pages.call(["data", "--experiment", "my_data"], folder)
    found = json.loads((folder / "runs/data-my_data/statistics.json").read_text())
    missing = {
        task: sum(found[part][task]["missing"] for part in found)
        for task in ("shape", "size", "mask")
    }
    assert sum(missing.values()) == 30
    assert all(missing.values())
    assert sum(found[part]["examples"] for part in found) == 300
    assert (folder / "runs/data-my_data/samples.png").stat().st_size > 10_000


def test_the_table_shown_is_the_one_that_is_made(prepared):
    lines = (prepared("my_data") / "my_data/labels.csv").read_text().splitlines()
    shown = re.findall(r"^    ((?:image,|\d{3}\.png,).*)$", pages.read("my_data"), re.M)
    assert shown[0] == lines[0]
    assert all(line in lines for line in shown)


def test_every_kind_of_task_is_in_the_table():
    named = set(re.findall(r"`([A-Z]\w+)`", pages.read("my_data")))
    assert {cls.__name__ for cls in TASKS.values()} <= named


def test_the_experiment_is_a_template():
    experiment = find_experiment("my_data")
    assert experiment.data.source.startswith("folder:my_data")
    assert len({type(task) for task in experiment.tasks}) == 3


def headings(page):
    """The names by which the headings of a page can be linked to."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return [re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines]


@pytest.mark.parametrize("page", sorted(pages.DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_what_a_page_links_to_is_there(page):
    for link, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
        linked = page.parent / link if link else page
        if is_generated(linked):
            continue  # the build of the site checks it
        assert linked.exists(), link
        assert not heading or heading in headings(linked), heading
