"""The site: `make site` writes build/site from these pages."""

from pipeline import __version__

project, author, version, release = "Affectory", "Affectory contributors", __version__, __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["conf.py"]
html_theme, html_title = "furo", f"Affectory {__version__}"
html_show_copyright = False
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # `-S '~stream@…'` is no Python, and need not be
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
