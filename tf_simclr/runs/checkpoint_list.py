"""Lists the checkpoints of a run."""

import pathlib
import re


def list_checkpoints(folder: pathlib.Path) -> dict[int, str]:
    """The checkpoints in a run's folder, oldest first: {step: path without suffix}.

    Lists the files themselves: TensorFlow's own list, the file `checkpoint`, may be broken or out of date.
    """
    names = [re.fullmatch(r"ckpt-(\d+)\.index", path.name) for path in (folder / "checkpoints").glob("*.index")]
    steps = sorted(int(name[1]) for name in names if name)
    return {step: str(folder / "checkpoints" / f"ckpt-{step}") for step in steps}
