"""The view as HTML: one template for the file and for the live page."""

from __future__ import annotations

import re
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
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["keep_together"] = keep_together
    return environment


def keep_together(text: str) -> str:
    """Return a sentence that no line break divides within a percentage or an interval."""
    return re.sub(r"(?<=\d)-(?=\d)", "\N{NON-BREAKING HYPHEN}", text.replace(" %", "\N{NO-BREAK SPACE}%"))
