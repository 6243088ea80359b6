"""Tables that the command line prints."""

from rich.console import Console

from mtljax.cli.catalog import Entry
from mtljax.cli.tables import entry_details, predictions_table


def test_predictions_have_the_probability_of_the_first_class_or_box():
    entry = {
        "image": "a.png",
        "size": [4, 4],
        "model_size": [4, 4],
        "kind": {"prediction": 1, "text": "dog", "top": [{"class": "dog", "probability": 0.9}]},
        "boxes": {"prediction": {"scores": [0.25, 0.5]}, "text": "cat, dog"},
        "none": {"prediction": {"scores": []}, "text": "nothing"},
        "age": {"prediction": 3.0, "text": "3.00"},
    }
    console = Console(width=80)
    with console.capture() as printed:
        console.print(predictions_table([entry]))
    cells = [line.split() for line in printed.get().splitlines() if line.strip()][2:]
    assert cells == [
        ["a.png", "kind", "dog", "90.0", "%"],
        ["boxes", "cat,", "dog", "50.0", "%"],
        ["none", "nothing"],
        ["age", "3.00"],
    ]


def test_items_of_a_list_are_wrapped_at_the_width_of_the_terminal():
    entry = Entry(name="x", description="One.\n\nUses:\n- a word\n  and more\n- b", papers="")
    console = Console(width=40)
    with console.capture() as printed:
        console.print(entry_details("things", entry))
    lines = [line.strip() for line in printed.get().splitlines()]
    assert lines[lines.index("Uses:") :][:3] == ["Uses:", "- a word and more", "- b"]
