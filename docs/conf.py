"""The site: `make site` writes build/site from these pages."""

from pipeline.version import VERSION

project, author, version, release = "Affectory", "Affectory contributors", VERSION, VERSION
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["conf.py"]
html_theme, html_title = "furo", f"Affectory {VERSION}"
html_show_copyright = False
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # `-S '~stream@…'` is no Python, and need not be
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
