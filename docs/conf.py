"""Settings of the documentation site, which `make docs` builds into build/docs; its source is the whole repository."""

from __future__ import annotations

from importlib.metadata import version as installed_version

project = "fedoel"
author = copyright = "The fedoel authors"
version = release = installed_version("fedoel")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "docs/howto/*.md", "benchmarks/results/**/*.md", "*.md"]
suppress_warnings = ["toc.not_included"]  # tables of results, which the pages link to
html_theme = "furo"
html_title = "fedoel"
html_extra_path = ["start"]  # sends index.html to the first page

myst_heading_anchors = 4  # anchors as on GitHub, so that links work in both

autodoc_member_order = "bysource"
napoleon_google_docstring = False

linkcheck_anchors = False  # many sites make them with a script
linkcheck_timeout = 20
