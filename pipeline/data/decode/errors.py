"""Why a clip could not be decoded."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import UserError
from pipeline.reasons import REASONS, known


class DecodeError(UserError):
    """One clip cannot be decoded.

    Attributes:
        reason: a key of `pipeline.reasons.REASONS`.
        detail: what exactly, on one line.
        path: the media.
    """

    def __init__(self, reason: str, detail: str, path: str | Path = "") -> None:
        super().__init__(reason, detail, str(path))
        self.reason = known(reason)
        self.detail = " ".join(str(detail).split())
        self.path = str(path)

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{REASONS[self.reason]} ({self.detail})."
