"""Choosing from a dict by name, with arguments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtljax.utils.registry import choose, did_you_mean, nearest


def cat(
    lives: int = 9,
    *,
    weight: float = 4.0,
    name: str = "Tom",
    tame: bool = True,
    toes: tuple[int, ...] = (5, 5),
    chip: int | None = None,
):
    return (lives, weight, name, tame, toes, chip)


def dog(owner: str):
    if owner == "nobody":
        raise KeyError("a dog needs somebody")
    return owner


def cattle(heads: dict[str, int]):
    return heads


ANIMALS = {"cat": cat, "dog": dog, "cattle": cattle}


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("cat", (9, 4.0, "Tom", True, (5, 5), None)),
        ("cat:", (9, 4.0, "Tom", True, (5, 5), None)),
        ("cat:lives=7", (7, 4.0, "Tom", True, (5, 5), None)),
        ("cat:weight=3,tame=false", (9, 3.0, "Tom", False, (5, 5), None)),
        ("cat: name = Kater , chip = 12 ", (9, 4.0, "Kater", True, (5, 5), 12)),
        ("cat:toes=(4,5,4),chip=none", (9, 4.0, "Tom", True, (4, 5, 4), None)),
        ("cat:toes=4", (9, 4.0, "Tom", True, (4,), None)),
        ("cat:weight=1e-2", (9, 0.01, "Tom", True, (5, 5), None)),
        ("cat:name='a,b=c'", (9, 4.0, "a,b=c", True, (5, 5), None)),
        ("cat:name=2024", (9, 4.0, "2024", True, (5, 5), None)),
        ("dog:me", "me"),
        ("dog:/home/me:1", "/home/me:1"),
        ("dog:'a=b,c'", "a=b,c"),
        ("cattle:{'Tom':2}", {"Tom": 2}),
    ],
)
def test_arguments_are_read_with_their_types(text, made):
    assert choose("animal", text, ANIMALS).build() == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cta", "unknown animal 'cta'; did you mean 'cat'? (choose from cat, cattle, dog)"),
        ("ox", "unknown animal 'ox' (choose from cat, cattle, dog); if it is your own, "),
        ("", "unknown animal '' (choose from cat, cattle, dog)"),
        ("cat:live=3", "animal 'cat' has no argument 'live'; did you mean 'lives'? "),
        ("cat:7", "animal 'cat:7': '7' is not argument=value"),
        ("cat:lives=many", "animal 'cat': lives must be an integer, not 'many'"),
        ("cat:lives=2.5", "animal 'cat': lives must be an integer, not '2.5'"),
        ("cat:lives=true", "animal 'cat': lives must be an integer, not 'true'"),
        ("cat:weight=fat", "animal 'cat': weight must be a number, not 'fat'"),
        ("cat:tame=maybe", "animal 'cat': tame must be true or false, not 'maybe'"),
        ("cat:tame=1", "animal 'cat': tame must be true or false, not '1'"),
        ("cat:toes=(a,b)", "animal 'cat': toes must be "),
        ("cat:toes=(5,5", "animal 'cat': toes must be several values in parentheses, not '(5,5'"),
        ("cat:chip=x", "animal 'cat': chip must be an integer or none, not 'x'"),
        ("cat:lives=1,lives=2", "animal 'cat': lives is given twice"),
        ("dog", "animal 'dog' needs owner: write dog:owner=..."),
        ("dog:me,you", "animal 'dog:me,you': 'you' is not argument=value"),
        ("cattle:Tom", "animal 'cattle': heads must be names and values in braces, not 'Tom'"),
    ],
)
def test_mistakes_are_named_in_one_line(text, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        choose("animal", text, ANIMALS)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_what_a_thing_itself_refuses_is_said_with_its_name():
    with pytest.raises(ValueError, match="animal 'dog:owner=nobody' cannot be created: .*somebody"):
        choose("animal", "dog:owner=nobody", ANIMALS).build()


def test_hidden_arguments_are_not_the_users():
    with pytest.raises(ValueError, match="has no argument 'lives'"):
        choose("animal", "cat:lives=3", ANIMALS, hidden=("lives",))


@given(st.text(max_size=40))
def test_no_text_ends_in_anything_but_a_choice_or_a_message(text):
    message = ""
    try:
        choose("animal", "cat:" + text, ANIMALS).build()
    except ValueError as error:
        message = str(error)
    assert message == "" or message.startswith("animal ")


def test_many_words_are_not_all_listed_beside_the_nearest():
    words = [f"word{i}" for i in range(50)]
    assert nearest("wort7", words) == did_you_mean("wort7", words) != ""
    assert "word49" in nearest("something", words)
