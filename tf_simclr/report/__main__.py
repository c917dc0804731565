"""Writes the report of a run, a page that compares several, or an index of a folder of runs.

python -m tf_simclr.report runs/a                               # runs/a/report.html
python -m tf_simclr.report runs/a runs/b --output=compare.html
python -m tf_simclr.report runs                                 # runs/index.html
"""

import argparse
import pathlib
from collections.abc import Sequence

from tf_simclr import program
from tf_simclr.report.folder import is_run
from tf_simclr.report.index import find_runs, write_index
from tf_simclr.report.several import write_several
from tf_simclr.report.write import write_report

COMPARISON, INDEX = "compare.html", "index.html"


def write(folders: Sequence[pathlib.Path], output: pathlib.Path | None = None) -> pathlib.Path:
    """Writes the page that fits: of one run, of several, or of a folder that holds runs; returns its path.

    Raises:
      FileNotFoundError: If a folder is not one of a run.
      ValueError: If nothing is there to compare.
    """
    if len(folders) > 1:
        return write_several(folders, output or pathlib.Path(COMPARISON))
    (folder,) = folders
    if not is_run(folder) and next(iter(find_runs(folder)), None) is not None:
        return write_index(folder, output or folder / INDEX)
    return write_report(folder, output)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tf_simclr.report", description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=pathlib.Path, metavar="RUN", help="folder of a run, or of runs")
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE", help="the page, instead of its usual place")
    options = parser.parse_args(arguments)
    program.show("report", lambda: str(write(options.folders, options.output)))


if __name__ == "__main__":
    main()
