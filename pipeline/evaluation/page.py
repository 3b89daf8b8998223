"""How pages are made: templates, and the filters they share."""

from __future__ import annotations

from pathlib import Path

import jinja2

from . import results
from .svg import format_number

TEMPLATES = Path(__file__).parent / "templates"


def make_environment(*folders: Path) -> jinja2.Environment:
    """Templates of the page, and before them those of `folders`, with the filters that both use."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {
        "num": format_number,
        "title_of": results.name_metric,
        "less": results.less_is_better,
        "signed": lambda value, digits=3: "–" if value is None else ("+" if value > 0 else "") + format_number(value, digits),
    }
    return made
