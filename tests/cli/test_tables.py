"""Tables that the command line prints."""

from rich.console import Console

from mtljax.cli.tables import predictions_table


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
