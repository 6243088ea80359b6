"""Trials by which a method of a comparison is tuned: all those of a method are one member."""

from mtljax.comparison.members import Member
from mtljax.runs.checkpoints import saved_steps
from mtljax.tuning.records import TrialRecord
from mtljax.tuning.space import parse_space
from mtljax.tuning.study import DATABASE, TRIALS, Study
from mtljax.tuning.trials import Trainer


def train_trials(member: Member, trainer: Trainer) -> list[TrialRecord]:
    """Trains the missing trials of a member and returns all.

    Raises:
      ValueError: The folder has another study, or its storage cannot be used.
      Stopped: SIGTERM was received (the same call resumes), or no trial was completed.
    """
    return trainer.run(_study(member), member.candidate.experiment, member.trials)


def has_all_trials(member: Member) -> bool:
    """Returns True if no trial of a member is missing or unfinished."""
    if not (member.folder / DATABASE).exists():
        return False
    ended = [record for record in _study(member).records() if record.state != "running"]
    return len(ended) >= member.trials


def steps_of_trials(member: Member) -> int:
    """Returns the steps of earlier trials and of the latest checkpoint of the last one."""
    folders = sorted((member.folder / TRIALS).glob("[0-9]*"))
    if not folders:
        return 0
    earlier = (len(folders) - 1) * member.candidate.experiment.steps
    return earlier + max(saved_steps(folders[-1]), default=0)


def _study(member: Member) -> Study:
    experiment = member.candidate.experiment
    space = parse_space(member.space, experiment)
    return Study(member.folder, experiment, space, seed=experiment.seed)
