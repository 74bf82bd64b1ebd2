"""The view as HTML: one template for the file and for the live page."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .view import View

FOLDER = Path(__file__).parent
TEMPLATE, STYLE, SCRIPT = "page.html.j2", "style.css", "reload.js"


def render(view: View, stamp: str | None = None) -> str:
    """Return the page.

    Parameters
    ----------
    stamp
        The state of the run's files that a live page shows; None for a file that holds everything and loads nothing.
    """
    return _environment().get_template(TEMPLATE).render(view=view, stamp=stamp)


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
