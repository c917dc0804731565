"""What a benchmark has measured by now: a second start of the same command goes on where the first one stopped."""

import json
import os
import pathlib
import platform
import re
import sys
from importlib.metadata import version
from typing import Any

from tf_simclr import files


class Ledger:
    """Named values in a file, beside what they are of.

    Attributes:
      values: The values, by name.
    """

    def __init__(self, path: pathlib.Path, **what: Any):
        """Opens a file, or begins one.

        Args:
          path: The file.
          **what: What decides the values, besides the machine; ends the program if the file's is another.
        """
        self._path = path
        self._what = json.loads(json.dumps(what | {"machine": machine()}))  # As a file gives it back.
        self.values: dict[str, Any] = {}
        if path.is_file():
            found = files.read_json(path)
            other = [name for name in self._what if found.get("what", {}).get(name) != self._what[name]]
            if other:
                names = " and ".join(other)
                sys.exit(f"{path} has measurements with another value of {names}: use another --model_dir")
            self.values = found["values"]

    def write(self, **values: Any) -> None:
        """Adds values, or replaces them."""
        self.values |= values
        self._path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(self._path, {"what": self._what, "values": self.values})


def machine() -> str:
    """The processor, how many of its cores there are, and TensorFlow."""
    text = pathlib.Path("/proc/cpuinfo").read_text() if pathlib.Path("/proc/cpuinfo").exists() else ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    extensions = [one for one in ("avx512_bf16", "amx_bf16") if one in text]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{cores} cores of {found[1] if found else platform.processor()}"
        f"{''.join(f', {one}' for one in extensions)}, TensorFlow {version('tensorflow')}"
    )
