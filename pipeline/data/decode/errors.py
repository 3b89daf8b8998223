"""Why a clip could not be decoded."""

from __future__ import annotations

from pathlib import Path

from ...errors import UserError

#: Reasons of a `DecodeError` and of a lost task, as they stand in `data/quarantine.parquet`.
REASONS: dict[str, str] = {
    "missing": "the media file or folder is not there",
    "empty": "the media holds no bytes, no frames or no samples",
    "unreadable": "no decoder can make sense of the bytes",
    "truncated": "the media ends well before the length it declares",
    "corrupt": "more than a tenth of the packets cannot be decoded",
    "not_finite": "the samples are NaN, infinite or absurdly large",
    "no_video": "the media has no video stream",
    "no_audio": "the media has no audio stream",
    "out_of_range": "the clip's start lies beyond the end of the media",
    "too_large": "a frame is larger than any video camera makes",
    "memory": "decoding needs more memory than there is",
    "timeout": "decoding took longer than run.timeout",
    "crash": "the decoder crashed",
    "error": "decoding failed in an unforeseen way",
}


class DecodeError(UserError):
    """One clip cannot be decoded.

    Attributes:
        reason: a key of `REASONS`.
        detail: what exactly, on one line.
        path: the media.
    """

    def __init__(self, reason: str, detail: str, path: str | Path = "") -> None:
        super().__init__(reason, detail, str(path))
        self.reason = reason
        self.detail = " ".join(str(detail).split())
        self.path = str(path)

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{REASONS.get(self.reason, self.reason)} ({self.detail})."
