"""How Sphinx builds these pages: make docs."""

from importlib import metadata

project = "metakd"
author = "The metakd developers"
copyright = "The metakd developers, Apache-2.0"
release = metadata.version("metakd")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"metakd {release}"
exclude_patterns = ["_build"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
