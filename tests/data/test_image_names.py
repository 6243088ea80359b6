"""Names of images in tables, and the files that they are."""

import unicodedata

import pytest

from mtljax.data.notes import NoteCounter
from mtljax.data.rows import Row
from mtljax.data.tables.image_names import FileFinder

NFD = unicodedata.normalize("NFD", "é")


def find(folder, cell, *names):
    for name in names:
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    notes = NoteCounter()
    found = FileFinder(folder, "images", notes).find(cell, Row(2, {}, folder / "t.csv"))
    return found.relative_to(folder / "images").as_posix(), [
        str(n).replace(f"{folder}/", "") for n in notes.notes()
    ]


STEM = ["converted 1 image names without an extension, first: t.csv row 2"]
MOVED = ["converted 1 absolute paths that do not exist to files in the folder, first: t.csv row 2"]


@pytest.mark.parametrize(
    ("cell", "name", "notes"),
    [
        ("a.png", "a.png", []),
        ("./a.png", "a.png", []),
        ("cam\\a.png", "cam/a.png", []),
        ("images/a.png", "a.png", []),
        ("a.JPG", "a.jpg", []),
        ("a.jpg", "a.JPG", []),
        ("é.png", f"{NFD}.png", []),
        ("é/a.png", f"{NFD}/a.png", []),
        ("0001", "0001.jpg", STEM),
        ("img.1", "img.1.tif", STEM),
        (12, "12.png", STEM),
        (12.0, "12.png", STEM),
        ("12.0", "12.png", ["converted 1 ids of images such as 12.0 to 12, first: t.csv row 2"]),
        ("/home/me/data/cam/a.png", "cam/a.png", MOVED),
        ("C:\\data\\images\\a.png", "a.png", MOVED),
        ("my a.png", "my a.png", []),
    ],
)
def test_names_as_tables_have_them(cell, name, notes, tmp_path):
    assert find(tmp_path, cell, name) == (name, notes)


def test_paths_from_the_folder_above(tmp_path):
    assert find(tmp_path, f"{tmp_path.name}/images/a.png", "a.png") == ("a.png", [])


def test_absolute_paths(tmp_path):
    assert find(tmp_path, str(tmp_path / "images" / "a.png"), "a.png") == ("a.png", [])


def test_the_full_name_comes_first(tmp_path):
    names = ("a.png", "b/a.png", "a", "a.JPG", "a.jpg")
    for name in names:
        assert find(tmp_path, name, *names) == (name, [])


@pytest.mark.parametrize(
    ("cell", "names", "message"),
    [
        ("a", ["a.jpg", "a.png"], "a may be a.png and a.jpg: write the full name"),
        ("a.Jpg", ["a.jpg", "a.JPG"], "a.Jpg may be a.JPG and a.jpg"),
        (1, ["0001.jpg"], "there is no file 1 in .*; did you mean 0001.jpg.*write all zeros"),
        ("1.jpg", ["01.jpg"], "no file 1.jpg in .*did you mean 01.jpg"),
        ("1.jpg", ["1.png"], r"no file 1.jpg in .*did you mean 1.png\?$"),
        ("b/cat.jpg", ["b/cat.png"], r"no file b/cat.jpg in .*did you mean cat.png\?$"),
        ("a.png", ["b/a.png"], "there is no file a.png in [^;]*$"),
        ("b/a.png", ["a.png"], "there is no file b/a.png in "),
        ("a", ["b.png"], "there is no file a in "),
        ("https://example.org/a.png", ["a.png"], "'https://example.org/a.png' is a URL; download"),
        ("s3://bucket/a.png", ["a.png"], "is a URL; download"),
        ("data:image/png;base64,AAAA", [], "is a URL"),
        (None, [], "the cell with the image's name is empty"),
        (True, [], "must have the name of an image file, not True"),
        ({"a": 1}, [], "must have the name of an image file, not dict"),
        (1.5, [], "must have the name of an image file, not 1.5"),
        ("a\0.png", [], r"there is no file a\\x00.png in "),
        ("\ud800.png", [], r"there is no file \\ud800.png in "),
        ("x" * 5000, [], r"'xxx.*\.\.\.' cannot be a file name"),
        ("..", [], "there is no file .. in "),
    ],
)
def test_names_without_a_file_are_refused(cell, names, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        find(tmp_path, cell, *names)
    assert len(str(error.value).replace(str(tmp_path), "")) < 200


def test_the_folder_of_images_with_another_name_is_named(tmp_path):
    for name in ("masks/b.png", "photos/a.png", "t.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    finder = FileFinder(tmp_path, "images", NoteCounter())
    with pytest.raises(ValueError, match=r"in subfolder photos, which must be called images$"):
        finder.find("a.png", Row(2, {}, tmp_path / "t.csv"))
    with pytest.raises(ValueError, match=r"there is no file c.png in [^;]*$"):
        finder.find("c.png", Row(3, {}, tmp_path / "t.csv"))


def test_a_link_without_a_target_is_named(tmp_path):
    (tmp_path / "1.png").symlink_to(tmp_path / "absent.png")
    with pytest.raises(ValueError, match="no file 1.png in .*; the link .* does not exist"):
        find(tmp_path, "1.png", "01.png")


def test_unused_images(tmp_path):
    find(tmp_path, "a.png", "a.png", "b.JPG", "c.txt", "sub/d.png")
    finder = FileFinder(tmp_path, "images", NoteCounter())
    used = [finder.find("a.png", Row(2, {}, tmp_path / "t.csv"))]
    assert [path.name for path in finder.unmatched(used)] == ["b.JPG"]
