"""Parses the command line of `run.py` into settings."""

from absl import flags
from paths import ROOT

from tf_simclr import builders, evaluation
from tf_simclr.runs.saved_settings import settings_of_checkpoint, settings_of_run
from tf_simclr.settings import command_line


def parse(*arguments, read_checkpoint=settings_of_checkpoint):
    """The settings that follow from these arguments of `run.py`."""
    values = flags.FlagValues()
    command_line.define(values)
    values(["run.py", *arguments])
    return command_line.to_config(
        values, ROOT, names=builders.NAMES | evaluation.NAMES, read_run=settings_of_run, read_checkpoint=read_checkpoint
    )


def parse_stages(*arguments):
    """The stages that follow from these arguments of `run.py`; None if the config has none."""
    values = flags.FlagValues()
    command_line.define(values)
    values(["run.py", *arguments])
    return command_line.to_stages(values, names=builders.NAMES | evaluation.NAMES)
