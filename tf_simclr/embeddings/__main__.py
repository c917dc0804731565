"""Searches, cleans and chooses images by their embeddings.

python -m tf_simclr.embeddings FOLDER search --query=IMAGE --count=10
python -m tf_simclr.embeddings FOLDER dedupe
python -m tf_simclr.embeddings FOLDER select --count=500 --output=label.csv
python -m tf_simclr.embeddings FOLDER outliers --html=outliers.html
python -m tf_simclr.embeddings FOLDER suspects
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_simclr import program
from tf_simclr.data.files.names import printable
from tf_simclr.embeddings import duplicates, neighbors, oddities, output, pictures, selection
from tf_simclr.embeddings.folder import Embeddings
from tf_simclr.embeddings.index import Index
from tf_simclr.embeddings.output import Found

# Copies are at least so similar; docs/embedding.md has the measurements.
SIMILARITY = 0.98


def describe(archive: Embeddings, title: str, rows: Sequence[int], columns: Mapping[str, Sequence[Any]]) -> Found:
    """Names the images at some rows."""
    labels = archive.labels()
    return Found(title, [archive.path(row) for row in rows], [labels[row] for row in rows], columns)


def search(archive: Embeddings, options: argparse.Namespace) -> Found:
    """The images most similar to one."""
    row = archive.find(options.query)
    if row is None:
        from tf_simclr.embeddings.query import embed_image  # Loads TensorFlow.

        query = embed_image(options.query, archive.about)
    else:
        query = next(block[row - first] for first, block in archive.blocks() if first <= row < first + len(block))[None]
    how = ""
    if options.approximate:
        index = Index(archive)
        rows, likenesses = index.search(query, options.count)
        how = f", by an index that finds {index.recall:.1%} of the exact ones"
    else:
        rows, likenesses = neighbors.search(query, archive.blocks(), options.count)
    found = rows[0][rows[0] >= 0].tolist()
    title = f"The {len(found):,} of {len(archive):,} images most similar to {printable(options.query)}{how}"
    return describe(archive, title, found, {"similarity": likenesses[0][: len(found)].tolist()})


def dedupe(archive: Embeddings, options: argparse.Namespace) -> Found:
    """Groups of near duplicates. Nothing is deleted."""
    pairs, likenesses = neighbors.pairs(archive.vectors(), options.similarity)
    groups = duplicates.group(pairs, likenesses, lambda row: pictures.num_bytes(archive.path(row)))
    rows = [row for group in groups for row in (group.keep, *group.others)]
    numbers = [number for number, group in enumerate(groups, 1) for _ in range(1 + len(group.others))]
    alike = [likeness for group in groups for likeness in (1.0, *group.likenesses)]
    keep = [mark for group in groups for mark in ("yes", *["no"] * len(group.others))]
    title = (
        f"{len(groups):,} groups of near duplicates, {len(rows) - len(groups):,} images too many of {len(archive):,}"
    )
    return describe(archive, title, rows, {"group": numbers, "keep": keep, "similarity": alike})


def select(archive: Embeddings, options: argparse.Namespace) -> Found:
    """The images to label first."""
    count = min(options.count, len(archive))
    rows = selection.METHODS[options.method](archive.vectors(), count)
    title = f"{count:,} of {len(archive):,} images to label first, by the method {options.method}"
    return describe(archive, title, rows.tolist(), {"order": list(range(1, count + 1))})


def outliers(archive: Embeddings, options: argparse.Namespace) -> Found:
    """The images unlike all others."""
    rows, alike = oddities.outliers(archive.vectors(), options.count)
    title = f"The {len(rows):,} of {len(archive):,} images least similar to their {oddities.NEIGHBORS} nearest ones"
    return describe(archive, title, rows.tolist(), {"similarity": alike.tolist()})


def suspects(archive: Embeddings, options: argparse.Namespace) -> Found:
    """The images whose label is unlike that of their neighbours."""
    found = oddities.suspects(archive.vectors(), archive.labels())
    title = f"{len(found.rows):,} of {len(archive):,} labels are unlike those of the nearest images; the surest first"
    first = oddities.Suspects(*(column[: options.count] for column in found))
    columns = {
        "proposed": first.proposed.tolist(),
        "agreement": first.agreement.tolist(),
        "confidence": first.confidence.tolist(),
    }
    return describe(archive, title, first.rows.tolist(), columns)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--output", type=pathlib.Path, metavar="FILE", help="list, .csv, or images, .parquet")
    common.add_argument("--html", type=pathlib.Path, metavar="FILE", help="page of thumbnails")
    parser = argparse.ArgumentParser(prog="python -m tf_simclr.embeddings", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", help="folder that run.py --mode=embed has filled")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    made = {}
    for action in (search, dedupe, select, outliers, suspects):
        made[action.__name__] = actions.add_parser(action.__name__, parents=[common], help=action.__doc__)
        made[action.__name__].set_defaults(act=action)
    made["search"].add_argument("--query", required=True, metavar="IMAGE", help="image in the archive, or any other")
    made["search"].add_argument(
        "--approximate", action="store_true", help="by an index, which the first search builds; needs faiss-cpu"
    )
    made["dedupe"].add_argument(
        "--similarity", type=_share, default=SIMILARITY, help="of copies, at least (%(default)s)"
    )
    made["select"].add_argument("--method", choices=selection.METHODS, default="typical", help="default: %(default)s")
    counts = {"search": 10, "select": None, "outliers": 50, "suspects": 50}
    for name, count in counts.items():
        shown = f"most images to show{'' if count is None else ' (%(default)s)'}"
        made[name].add_argument("--count", type=_at_least_1, default=count, required=name == "select", help=shown)
    return parser.parse_args(arguments)


def _at_least_1(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1. Received: {text!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0, at most 1. Received: {text!r}")
    return value


def main(arguments: Sequence[str] | None = None) -> None:
    """Does what the command line asks for."""
    options = parse(arguments)

    def act() -> str:
        found = options.act(Embeddings(options.folder), options)
        if options.output:
            output.write(found, options.output)
        if options.html:
            from tf_simclr.embeddings import page  # Loads Jinja2.

            page.write(found, options.html)
        return output.table(found)

    program.show("embeddings", act)


if __name__ == "__main__":
    main()
