"""Handwritten digits, ten labeled images per class, with a trunk pretrained on digit pairs.

The tasks, validation split and test split are those of `digits`, but the training split has 100
images. The trunk is loaded from a run of `multi_digits`, whose images are composed of all labeled
training digits; no digit of the validation or test split is in its training images. To train both:

python -m mtljax.main --experiment multi_digits --workdir runs/multi_digits
python -m mtljax.main --experiment digits_few

To measure the effect of the pretrained trunk over five seeds:

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
    # The pretrained features suffice for the digit; the value converges last. So heads have the
    # full learning rate, lower stages a smaller one, and the value has the larger weight and
    # selects the checkpoint. Tuned on validation.
    balancer="fixed:weights=(1,3)",
    learning_rate=1.2e-2,
    layer_decay=0.4,
    steps=1200,
    select="value/loss",
)
