"""What several machines that have trained a run together leave for the first one, which evaluates and exports it."""

import pathlib

from tf_simclr import files
from tf_simclr.runs.checkpoint_list import list_checkpoints

_TRAINED = "trained.json"


def mark_trained(folder: pathlib.Path, step: int) -> None:
    """Notes in a run's folder that it is trained to its end, which is at `step`."""
    files.write_json(folder / _TRAINED, {"step": step})


def have_trained(folder: pathlib.Path) -> bool:
    """Whether a run's newest checkpoint is that of the noted end."""
    marker = folder / _TRAINED
    return marker.is_file() and files.read_json(marker)["step"] == max(list_checkpoints(folder), default=0)
