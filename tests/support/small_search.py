"""Tiny searches: studies of settings of a small experiment."""

import dataclasses

from support.comparison import SMALL

from mtljax.tuning.space import parse_space
from mtljax.tuning.study import Study

BASE = dataclasses.replace(SMALL, steps=8, eval_every=2, log_every=2)
SPACE = ("learning_rate=loguniform(1e-3,1e-1)",)


def open_study(folder, experiment=BASE, space=SPACE, **options):
    return Study(folder, experiment, parse_space(space, experiment), seed=0, **options)
