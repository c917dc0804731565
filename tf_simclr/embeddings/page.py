"""A page of thumbnails: one HTML file that needs no other and runs nothing."""

import base64
import hashlib
import importlib.resources
import pathlib
from typing import Any

import jinja2
from markupsafe import Markup

from tf_simclr import files
from tf_simclr.data.files.names import printable
from tf_simclr.embeddings import pictures
from tf_simclr.embeddings.output import Found, cell, groups

_MAX_SHOWN = 500


def write(found: Found, path: pathlib.Path) -> None:
    """Writes the page of the first images.

    Raises:
      OSError: If it cannot be written.
    """
    style, page = (
        importlib.resources.files(__package__).joinpath("templates").joinpath(name).read_text(encoding="utf-8")
        for name in ("thumbnails.css", "thumbnails.html")
    )
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    sections = [
        {"heading": heading, "images": [_describe(found, row) for row in rows if row < _MAX_SHOWN]}
        for heading, rows in groups(found)
        if rows.start < _MAX_SHOWN
    ]
    text = environment.from_string(page).render(
        title=printable(found.title),
        style=Markup(style),  # noqa: S704
        policy=f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        sections=sections,
        more=max(0, len(found.paths) - _MAX_SHOWN),
    )
    files.write_text(path, text)


def _describe(found: Found, row: int) -> dict[str, Any]:
    path, label = found.paths[row], found.labels[row]
    facts = {"label": label, **{name: column[row] for name, column in found.columns.items() if name != "group"}}
    return {
        "picture": pictures.thumbnail(path),
        "path": printable(path),
        "name": printable(path.rpartition("/")[2] or path),
        "facts": [(name, cell(value)) for name, value in facts.items() if cell(value)],
    }
