"""Digits in files, with faults planted in them."""

import csv
import json

import numpy as np
from sklearn.datasets import load_digits

EACH = 20
"""Faults of every kind."""


def write_digits(folder, *, faults=True, most=None, each=EACH):
    """A folder of npy images and its table; returns {kind: {file name: file it is like}}."""
    chance = np.random.default_rng(0)
    images, classes = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8).astype(np.float32)[:most]
    names = [f"{i:04}.npy" for i in range(len(images))]
    split = chance.choice(["train", "validation", "test"], len(images), p=[0.7, 0.1, 0.2])
    rows = {n: [int(c), s] for n, c, s in zip(names, classes, split, strict=False)}
    pixels = dict(zip(names, images, strict=True))
    planted = {} if not faults else _plant(rows, pixels, chance, each)
    (folder / "images").mkdir(parents=True)
    for name, image in pixels.items():
        np.save(folder / "images" / name, image)
    for name in list(planted.get("unreadable", ())):
        path = folder / "images" / name
        path.write_bytes(path.read_bytes()[:-100])
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "digit", "split"])
        table.writerows([name, *row] for name, row in rows.items())
    return planted


def _plant(rows, pixels, chance, each):
    learned = [name for name, (_, split) in rows.items() if split == "train"]
    tested = [name for name, (_, split) in rows.items() if split == "test"]
    chosen = iter(chance.permutation(learned))
    take = lambda: [str(next(chosen)) for _ in range(each)]
    planted = {"label": dict.fromkeys(take()), "unreadable": {}, "not finite": {}}
    for name in planted["label"]:
        rows[name][0] = (rows[name][0] + int(chance.integers(1, 10))) % 10
    for i, name in enumerate(take()):
        planted["unreadable" if i % 2 else "not finite"][name] = None
    for name in planted["not finite"]:
        pixels[name][tuple(chance.integers(8, size=2))] = np.nan
    planted["out of range"] = dict.fromkeys(take())
    for name, value in zip(planted["out of range"], [1000, 60, -30, 1e9] * each, strict=False):
        pixels[name][tuple(chance.integers(8, size=2))] = value
    for kind, originals in (("duplicate", take()), ("leak", chance.choice(tested, each, False))):
        planted[kind] = {}
        for i, original in enumerate(map(str, originals)):
            name = f"{kind}{i}.npy"
            noise = chance.normal(0, 0.1 * (i % 2), (8, 8))  # every second is not an exact copy
            pixels[name] = (pixels[original] + noise).clip(0, 16).astype(np.float32)
            rows[name] = [rows[original][0], "train"]
            planted[kind][name] = original
    return planted


def names_of(folder):
    """{place: file name}, by the order of the table."""
    found, counts = {}, {}
    with (folder / "labels.csv").open() as file:
        for row in csv.DictReader(file):
            number = counts.setdefault(row["split"], 0)
            found[f"{row['split']} {number}"] = row["image"]
            counts[row["split"]] += 1
    return found


def read_findings(output, folder):
    """{kind: {file name: file it is like}}."""
    names, found = names_of(folder), {}
    for finding in json.loads((output / "findings.json").read_text()):
        like = finding["like"] and names[finding["like"]]
        found.setdefault(finding["kind"], {})[names[finding["place"]]] = like
    return found


def write_experiment(path, folder, **fields):
    """An experiment file on such a folder."""
    settings = "".join(f", {name}={value!r}" for name, value in fields.items())
    source = f"folder:path={str(folder)!r},channels=1,size=(8,8)"
    path.write_text(
        "from mtljax.config import Data, Experiment\n"
        "from mtljax.tasks import Classification\n"
        "experiment = Experiment(name='planted', trunk='mlp:widths=(128,)', learning_rate=6e-3,\n"
        "    tasks=(Classification(name='digit', num_classes=10),),\n"
        f"    data=Data(source={source!r}, batch_size=64){settings})\n"
    )
    return str(path)
