"""Splits in which groups are whole and strata are in proportion."""

import csv
import json
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mtljax.data import make_source
from mtljax.data.base import LabelRequest, membership_of
from mtljax.data.membership import Membership
from mtljax.data.notes import NoteCounter
from mtljax.data.sources.arrays import from_arrays
from mtljax.data.splitting import partition, split_by_hash, split_rows
from mtljax.tasks import Classification

SHARES = (0.7, 0.1, 0.2)
KIND = Classification(name="kind", num_classes=3, class_names=("cat", "dog", "owl"))


def split(members, validation=0.1, test=0.2, names=None, notes=None):
    names = names or [f"{i}.png" for i in range(len(members))]
    return split_rows(names, members, validation, test, 0, notes or NoteCounter())


def random_members(rng, rows, groups=0, strata=0):
    """Members with Zipf-like sizes of groups and strata."""
    weights = lambda count: (lambda w: w / w.sum())(1 / np.arange(1, count + 1))
    group = rng.choice(groups, rows, p=weights(groups)) if groups else None
    stratum = rng.choice(strata, rows, p=weights(strata)) if strata else None
    text = lambda values, i: "" if values is None else f"{values[i]}"
    return [Membership(text(group, i), text(stratum, i)) for i in range(rows)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("strata", [1, 2, 7, 100])
def test_each_stratum_is_in_each_part_in_proportion_to_less_than_a_row(seed, strata):
    rng = np.random.default_rng(seed)
    members = random_members(rng, int(rng.integers(20, 500)), strata=strata)
    names = [str(i) for i in range(len(members))]
    for shares in (SHARES, (0.2,) * 5, (0.5, 0.5)):
        parts = partition(names, members, shares, seed)
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(members)))
        totals = Counter(member.stratum for member in members)
        for part, share in zip(parts, shares, strict=True):
            counts = Counter(members[row].stratum for row in part)
            for name, total in totals.items():
                assert abs(counts[name] - share * total) < 1
        sizes = np.array([len(part) for part in parts])
        assert np.abs(sizes - np.array(shares) * len(members)).max() <= len(shares)


def test_many_small_strata_leave_no_split_empty():
    parts = split([Membership("", str(i // 4)) for i in range(400)])
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [280, 40, 80]


def test_every_class_has_a_training_row_and_rare_ones_are_noted():
    labels = ["common"] * 50 + ["rare"] * 2 + [f"single {i}" for i in range(9)]
    notes = NoteCounter()
    parts = split([Membership("", label) for label in labels], notes=notes)
    assert {labels[i] for i in parts["train"]} == set(labels)
    (note,) = notes.notes()
    assert note.kind == "warning"
    assert "too few rows of 'rare', 'single 0'" in str(note)
    assert "and 5 more for one in every split" in str(note)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("strata", [0, 3])
def test_groups_are_whole_and_shares_nearly_exact(seed, strata):
    rng = np.random.default_rng(seed)
    members = [
        Membership(f"patient {int(g)}", f"{int(g) % strata}" if strata else "")
        for g in rng.integers(0, 60, 900)
    ]
    names = [str(i) for i in range(900)]
    for shares in (SHARES, (0.2,) * 5):
        parts = partition(names, members, shares, seed)
        groups = [{members[row].group for row in part} for part in parts]
        assert sum(map(len, groups)) == len(set.union(*groups))
        assert sorted(np.concatenate(parts).tolist()) == list(range(900))
        np.testing.assert_allclose([len(part) / 900 for part in parts], shares, atol=0.02)
        for k in range(strata):
            inside = np.array([member.stratum == str(k) for member in members])
            found = [inside[part].sum() / inside.sum() for part in parts]
            np.testing.assert_allclose(found, shares, atol=0.06)


@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_a_few_groups_are_enough_for_all_splits(count):
    members = [Membership(f"scene {i % count}") for i in range(40)]
    notes = NoteCounter()
    parts = split(members, notes=notes)
    assert all(parts.values())
    groups = [{members[row].group for row in rows} for rows in parts.values()]
    assert sum(map(len, groups)) == count
    large = [Membership(f"{i}") for i in [0] * 1000 + list(range(1, count))]
    assert all(map(len, partition(list(map(str, range(len(large)))), large, SHARES)))


def test_a_group_stays_in_its_split_when_others_come_and_go():
    members = [Membership(f"video {i % 400}") for i in range(1600)]
    parts = split(members)
    where = {members[row].group: name for name, rows in parts.items() for row in rows}
    fewer = members[::3] + [Membership("video 7")] * 5
    for name, rows in split(fewer).items():
        assert all(where[fewer[row].group] == name for row in rows)


def test_few_names_leave_no_split_empty_and_many_are_split_by_their_hash_alone():
    for count in range(3, 12):
        assert all(split_by_hash([f"{i}.png" for i in range(count)], 0.1, 0.2, 0).values())


def write(folder, rows, as_json=False):
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for row in rows:
        Image.new("L", (4, 4)).save(folder / "images" / row["image"])
    if as_json:
        (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def table(count=60):
    kinds = ("cat", "cat", "cat", "dog", "dog", "owl")
    return [
        {"image": f"{i:03}.png", "kind": kinds[i % 6], "patient": i // 4, "site": i % 2}
        for i in range(count)
    ]


def opened(folder, arguments=""):
    return make_source(f"folder:'{folder}'{arguments}", [LabelRequest(KIND, "kind")])


def members_of(source):
    return {
        name: [membership_of(part, row) for row in range(len(part))]
        for name, part in source.splits().items()
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_a_folder_is_split_by_columns_and_its_splits_know_them(tmp_path, as_json):
    write(tmp_path, table(), as_json)
    members = members_of(opened(tmp_path, ",group=patient,stratify=kind"))
    groups = [{member.group for member in part} for part in members.values()]
    assert sum(map(len, groups)) == 15
    assert "0" in set.union(*groups)
    assert Counter(m.stratum for part in members.values() for m in part)["cat"] == 30
    strata = members_of(opened(tmp_path, ",stratify=kind"))
    assert Counter(m.stratum for m in strata["test"]) == {"cat": 6, "dog": 4, "owl": 2}
    assert Counter(m.stratum for m in strata["validation"]) == {"cat": 3, "dog": 2, "owl": 1}


def test_groups_are_the_same_in_every_format(tmp_path):
    write(tmp_path / "csv", table())
    write(tmp_path / "json", table(), as_json=True)
    parts = [members_of(opened(tmp_path / kind, ",group=patient")) for kind in ("csv", "json")]
    assert parts[0] == parts[1]


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        ({}, ",group=patiant", "no column 'patiant' for group=patiant; did you mean 'patient'?"),
        ({}, ",stratify=kin", "no column 'kin' for stratify=kin; did you mean 'kind'?"),
        ({"patient": ""}, ",group=patient", "is empty in 1 of 60 rows (row 9)"),
        ({}, ",stratify=image", "has 60 different values in 60 rows; stratify=image needs few"),
    ],
)
def test_unusable_columns_are_refused(tmp_path, change, arguments, words):
    rows = table()
    rows[7] |= change
    write(tmp_path, rows)
    with pytest.raises(ValueError, match=re.escape(words)):
        opened(tmp_path, arguments)


def test_a_group_in_two_given_splits_is_refused(tmp_path):
    names = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    rows = [{**row, "split": name} for row, name in zip(table(), names, strict=True)]
    write(tmp_path, rows)
    opened(tmp_path)
    with pytest.raises(ValueError, match="group '12' has rows in the validation and test splits"):
        opened(tmp_path, ",group=patient")
    for row in rows:
        row["patient"] = row["split"] + str(row["patient"])
    write(tmp_path, rows)
    assert [len(part) for part in members_of(opened(tmp_path, ",group=patient")).values()] == [
        40,
        10,
        10,
    ]


def test_class_folders_are_stratified(tmp_path):
    for kind, count in (("cat", 50), ("dog", 20), ("owl", 10)):
        (tmp_path / kind).mkdir()
        for i in range(count):
            Image.new("L", (4, 4)).save(tmp_path / kind / f"{i}.png")
    request = [LabelRequest(KIND, "class")]
    source = make_source(
        f"class_folders:'{tmp_path}',stratify=True,test=0.2,validation=0.1", request
    )
    labels = [int(source.test[i]["labels"]["kind"]) for i in range(len(source.test))]
    assert Counter(labels) == {0: 10, 1: 4, 2: 2}


@pytest.mark.parametrize("dtype", [int, str, float])
def test_arrays_are_split_by_group_and_class(tmp_path, dtype):
    patient, digit = np.repeat(np.arange(30), 4).astype(dtype), np.arange(120) % 3
    image = np.arange(120, dtype=np.uint8).reshape(120, 1, 1, 1)
    np.savez(tmp_path / "a.npz", image=image, digit=digit, patient=patient)
    request = [LabelRequest(Classification(name="digit", num_classes=3), "digit")]
    source = make_source(f"arrays:'{tmp_path}/a.npz',group=patient,stratify=digit", request)
    groups = [set(patient[part.image.ravel()]) for part in source.splits().values()]
    assert sum(map(len, groups)) == 30
    assert members_of(source)["test"][0].group == str(
        int(float(patient[source.test.image[0, 0, 0, 0]]))
    )
    strata = from_arrays(image, {"digit": digit}, stratify=digit)
    assert Counter(strata.test.labels["digit"].tolist()) == {0: 8, 1: 8, 2: 8}
    with pytest.raises(ValueError, match="no array 'patent' for group=patent; did you mean"):
        make_source(f"arrays:'{tmp_path}/a.npz',group=patent", request)


def video_folders(root):
    for kind in ("cat", "dog"):
        (root / kind).mkdir(parents=True)
        for i in range(40):
            Image.new("L", (4, 4)).save(root / kind / f"video{i // 4}_{i:03}.png")


def test_groups_of_file_names_are_whole(tmp_path):
    video_folders(tmp_path / "pets")
    task = Classification(name="kind", num_classes=2, class_names=("cat", "dog"))
    text = f"class_folders:'{tmp_path / 'pets'}',group='(video[0-9]+)_'"
    members = members_of(make_source(text, [LabelRequest(task, "class")]))
    groups = [{member.group for member in part} for part in members.values()]
    assert all(groups)
    assert sum(map(len, groups)) == 10
    assert set.union(*groups) == {f"video{i}" for i in range(10)}


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("scene[0-9]+", "matches nothing in 80 of 80 names of images, first cat/video0_000.png"),
        ("video(", "is no regular expression"),
        ("cat/(video[0-9]+)", "matches nothing in 40 of 80 names"),
    ],
)
def test_unusable_patterns_of_groups_are_refused(tmp_path, pattern, words):
    video_folders(tmp_path / "pets")
    task = Classification(name="kind", num_classes=2, class_names=("cat", "dog"))
    with pytest.raises(ValueError, match=re.escape(words)):
        make_source(
            f"class_folders:'{tmp_path / 'pets'}',group='{pattern}'", [LabelRequest(task, "class")]
        )


def test_a_group_of_file_names_in_two_given_splits_is_refused(tmp_path):
    for split, videos in (("train", range(6)), ("val", (5, 6)), ("test", (7, 8))):
        for kind in ("cat", "dog"):
            (tmp_path / split / kind).mkdir(parents=True)
            for i in videos:
                Image.new("L", (4, 4)).save(tmp_path / split / kind / f"v{i}_1.png")
    task = Classification(name="kind", num_classes=2, class_names=("cat", "dog"))
    with pytest.raises(ValueError, match="group 'v5' has rows in the train and validation splits"):
        make_source(f"class_folders:'{tmp_path}',group='v[0-9]+'", [LabelRequest(task, "class")])
