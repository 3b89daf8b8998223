"""Why a medium cannot be decoded."""

from __future__ import annotations

from ...errors import UserError


class DecodeError(UserError):
    """A medium cannot be used.

    Attributes:
        reason: one of missing, empty, unreadable, no_modality, invalid.
        detail: what the decoder said, in one line.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, " ".join(str(detail).split())

    def __reduce__(self) -> tuple:
        return type(self), (self.reason, self.detail)


class NoModality(DecodeError):
    """The medium is fine but has no such track: a missing modality, not a failure."""

    def __init__(self, detail: str) -> None:
        super().__init__("no_modality", detail)

    def __reduce__(self) -> tuple:
        return type(self), (self.detail,)
