"""The report of one run."""

import pathlib

from tf_simclr import files
from tf_simclr.report import images, page
from tf_simclr.report.folder import read_run

# In the run's folder.
FILE = "report.html"


def write_report(folder: pathlib.Path, output: pathlib.Path | None = None) -> pathlib.Path:
    """Writes the report of the run in a folder, as `files.replacing` does, and returns its path.

    Args:
      folder: The run's folder, which is only read.
      output: The file to write; without one, `report.html` in the folder.

    Raises:
      FileNotFoundError: If the folder is not one of a run.
    """
    run = read_run(folder)
    path = output or folder / FILE
    sprite = None if run.images is None or run.images.sprite is None else images.data_uri(run.images.sprite, "jpeg")
    text = page.render(
        "run.html",
        script="map.js",
        run=run,
        title=run.name,
        map_data=None if run.images is None else images.to_page(run.images),
        sprite=sprite,
    )
    files.write_text(path, text)
    return path
