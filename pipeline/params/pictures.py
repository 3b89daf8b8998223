"""What a stream may ask of its pictures."""

from __future__ import annotations

from .data import DecodeVideo, Faces
from .features import Stream


def check_pictures(name: str, stream: Stream, video: DecodeVideo, faces: Faces) -> None:
    """A stream sees no more than is decoded, and only pictures have a rate and a size of their own.

    Raises:
        ValueError: it asks for more, or has none.
    """
    within = {
        "fps": ("decode.video.fps", video.fps),
        "size": ("faces.size", faces.size) if stream.modality == "face" else ("decode.video.size", video.size),
    }
    for key, (where, most) in within.items():
        asked = getattr(stream, key)
        if asked is None:
            continue
        if stream.modality not in ("video", "face") or stream.encoder == "import":
            raise ValueError(f"streams.{name}.{key} is {asked:g}: only streams that encode pictures have it; leave it out")
        if most is not None and asked > most:
            raise ValueError(f"streams.{name}.{key} is {asked:g}, but {where} decodes {most:g}; raise {where} to it")
