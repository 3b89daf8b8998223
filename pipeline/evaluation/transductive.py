"""Whether figures are transductive, that is, whether unlabelled held-out clips had a part in them, and how the page says so.

It says so beside every heading and in every caption of the sections that hold figures, whoever wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.errors import StoreError
from pipeline.params.learning import TRANSDUCTIVE

#: Sections without a figure of a model.
PLAIN = ("data", "quarantine", "streams", "parameters")

SECTION = re.compile(r'<section id="(\w+)".*?</section>', re.S)
HEADING = re.compile(r'(<h[23][^>]*>|<caption>|<p class="name">)(.*?)(</h[23]>|</caption>|</p>)', re.S)
DRAWING = re.compile(r'(role="img" aria-label=")')


def find_transductive(configs: Iterable[dict]) -> str | None:
    """`speaker` or `session`, within which runs' features were normalised; None where held-out clips had no part in it.

    Args:
        configs: content of each run's `config.json`.

    Raises:
        StoreError: some runs are one thing and some another, which no table could tell apart.
    """
    found = {config["normalise"] for config in configs}
    if len(found) > 1:
        raise StoreError(
            f"the trained models are normalised in {len(found)} ways ({', '.join(sorted(found))}). Run `dvc repro train`."
        )
    (name,) = found
    return name if name in TRANSDUCTIVE else None


def tell(unit: str) -> str:
    """The words of it."""
    return f"transductive: features normalised per {unit} with unlabelled test clips"


def mark(page: str, unit: str | None) -> str:
    """The page with the word beside every heading, caption, tile and drawing of figures; the same page when there is none.

    >>> mark('<section id="results"><h3>UAR</h3></section><section id="data"><h3>Clips</h3></section>', None)[:36]
    '<section id="results"><h3>UAR</h3></'
    """
    if not unit:
        return page
    chip = f' <span class="chip warn" title="{tell(unit)}">transductive</span>'

    def put(text: str) -> str:
        return DRAWING.sub(rf"\1{tell(unit).capitalize()}. ", HEADING.sub(rf"\1\2{chip}\3", text))

    head, main, rest = page.partition("<main>")
    return put(head) + main + SECTION.sub(lambda found: found[0] if found[1] in PLAIN else put(found[0]), rest)
