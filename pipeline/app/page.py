"""The page: one file, whose style and script are in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from pipeline.evaluation.page import TEMPLATES as SHARED
from pipeline.evaluation.page import make_environment

TEMPLATES = Path(__file__).parent / "templates"
#: Header that carries the word only this page was given.
TOKEN = "X-Affectory"


class Page:
    """What the page says of the model.

    Args:
        classes, dimensions: that it tells. random: streams with random weights.
    """

    def __init__(self, recipe: str, classes: Sequence[str], dimensions: Sequence[str], random: Sequence[str]) -> None:
        self._values = {"recipe": recipe, "classes": classes, "dimensions": dimensions, "random": random}
        self._script = (TEMPLATES / "app.js").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(self._script.encode()).digest()).decode()
        #: Nothing but this very script is run, and this server alone is asked.
        rules = [f"script-src 'sha256-{digest}'", "connect-src 'self'", "media-src blob:", "img-src data:", "base-uri 'none'"]
        self._rules = "; ".join([*rules, "form-action 'none'"])

    @property
    def policy(self) -> str:
        """What a browser may do with the page, for the header of the answer."""
        return f"default-src 'none'; style-src 'unsafe-inline'; {self._rules}; frame-ancestors 'none'"

    def render(self, token: str) -> bytes:
        """The page as bytes."""
        style = "\n".join(path.read_text(encoding="utf-8") for path in (SHARED / "style.css", TEMPLATES / "app.css"))
        template = make_environment(TEMPLATES).get_template("app.html")
        given = {"style": Markup(style), "script": Markup(self._script), "policy": self._rules, "token": token}
        return template.render(given | self._values).encode()
