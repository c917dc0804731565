"""The command line of `run.py`, up to the settings that result from it."""

from absl import flags
from paths import ROOT

from tf_simclr import builders
from tf_simclr.runs.saved_settings import settings_of_checkpoint, settings_of_run
from tf_simclr.settings import command_line


def parse(*arguments, read_checkpoint=settings_of_checkpoint):
    """The settings that these arguments of `run.py` ask for."""
    values = flags.FlagValues()
    command_line.define(values)
    values(["run.py", *arguments])
    return command_line.to_config(
        values, ROOT, names=builders.NAMES, read_run=settings_of_run, read_checkpoint=read_checkpoint
    )
