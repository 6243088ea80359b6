"""Handwritten digits with ten labelled images per class, from a trunk that has seen pairs of them.

The two tasks of `digits`, validated and tested on the same images, but trained on 100 of them. The
trunk comes from a run of `multi_digits`, whose images are made of the same training digits, all of
them and labelled; no digit of validation or test is in its training images. To train both:

python -m mtljax.main --experiment multi_digits --workdir runs/multi_digits
python -m mtljax.main --experiment digits_few

and to see what the start is worth, with five seeds:

python -m mtljax.main compare --experiment digits_few --vary init=none,runs/multi_digits --seeds 5
"""

import dataclasses

from mtljax.config import find_experiment

digits = find_experiment("digits")

experiment = dataclasses.replace(
    digits,
    name="digits_few",
    data=dataclasses.replace(digits.data, source="digits:per_class=10", batch_size=50),
    init="runs/multi_digits",
    # What the trunk has learned serves the digit as it is; the value is learned last. So heads
    # learn fast and stages the slower the lower they are, and the value weighs more and chooses
    # the checkpoint. Found on validation.
    balancer="fixed:weights=(1,3)",
    learning_rate=1.2e-2,
    layer_decay=0.4,
    steps=1200,
    select="value/loss",
)
