"""Fills the templates: one HTML file that needs no other and may run nothing but its own script."""

import base64
import functools
import hashlib
import importlib.resources
import json
from typing import Any

import jinja2
from markupsafe import Markup

from tf_simclr.data.files.names import printable
from tf_simclr.report.charts.markup import shorten

_TEMPLATES = "templates"


def render(template: str, *, script: str | None = None, **values: Any) -> str:
    """The page of a template, with the stylesheet and one script inside.

    The content security policy of the page names both by their digest and allows nothing else: no other script, no
    style attribute, no request.

    Args:
      template: A file in `templates/` that extends `base.html`.
      script: The file there with the page's script, if it has one.
      **values: What the template shows. Text is escaped; only `Markup` is taken as HTML.
    """
    style, code = _text("style.css"), _text(script) if script else ""
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(code)}'" if code else "script-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    page = _environment().get_template(template)
    return page.render(style=Markup(style), script=Markup(code), policy=policy, **values)  # noqa: S704


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "printable": printable,
        "shorten": shorten,
        "percent": lambda share: f"{100 * share:.1f}\u00a0%",
        "percent_number": lambda share: f"{100 * share:.1f}",
        "points": lambda share: f"{100 * share:.1f}",
        "file_name": lambda path: path.rpartition("/")[2] or path,
        "indented": _indented,
    }
    return environment


def _indented(values: Any) -> str:
    """JSON as a person reads it, without anything that does not print."""
    lines = json.dumps(values, indent=2, ensure_ascii=False).split("\n")
    return "\n".join(map(printable, lines))


@functools.cache
def _text(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(_TEMPLATES).joinpath(name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    """What a content security policy calls a style or script with this content."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
