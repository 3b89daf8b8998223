"""Reading clips for an encoder, in worker processes: stored media → `Clip` → `Prepared`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from pipeline.features.encoders.extractor import Clip, Missing, Prepared, Turn
from pipeline.params import Stream
from pipeline.storage.feature_store import Status
from pipeline.storage.media_store import Media


@dataclass(frozen=True)
class Job:
    """One clip to encode.

    Attributes:
        id: clip id.
        content: key of the clip in the stream's cache.
    """

    id: str
    content: str
    text: str | None = None
    speaker: str | None = None
    context: tuple[Turn, ...] = ()
    duration: float | None = None


def list_jobs(manifest: pl.DataFrame, stream: Stream, *, turns: int = 0) -> list[Job]:
    """One job per clip of the manifest, in its order.

    For text streams the key covers what the encoder reads (text, speaker, earlier turns), so that a
    corrected transcript is encoded again and a re-cut clip is not.
    """
    from pipeline.storage.clip_cache import digest

    spoken = stream.modality == "text" and stream.encoder != "import"
    before = _context(manifest, turns) if spoken and turns else {}
    result = []
    for row in manifest.select("id", "content", "text", "speaker", "duration").iter_rows(named=True):
        if spoken:
            context = before.get(row["id"], ())
            key = digest(
                {
                    "text": row["text"],
                    "speaker": row["speaker"],
                    "duration": row["duration"],
                    "context": [[turn.speaker, turn.text] for turn in context],
                }
            )
            result.append(Job(row["id"], key, row["text"], row["speaker"], context, row["duration"]))
        elif stream.encoder == "import":
            # An imported feature belongs to the id; two clips of one content may have two.
            result.append(Job(row["id"], digest({"id": row["id"], "duration": row["duration"]}), duration=row["duration"]))
        else:
            result.append(Job(row["id"], row["content"], duration=row["duration"]))
    return result


def _context(manifest: pl.DataFrame, turns: int) -> dict[str, tuple[Turn, ...]]:
    """Up to `turns` earlier utterances of each clip's dialogue, those that are no targets among them; never a later one."""
    known = manifest.filter(pl.col("dialogue").is_not_null() & pl.col("turn").is_not_null())
    result: dict[str, tuple[Turn, ...]] = {}
    for _, dialogue in known.sort("turn", "id").group_by(["corpus", "split", "dialogue"], maintain_order=True):
        utterances = [Turn(row["speaker"], row["text"]) for row in dialogue.iter_rows(named=True)]
        for i, clip in enumerate(dialogue["id"]):
            result[clip] = tuple(utterances[max(0, i - turns) : i])
    return result


@dataclass
class Reader:
    """Job → `Prepared`, or the reason why not. Picklable; opens the media in the process that calls it."""

    prepare: Callable[[Clip], Prepared] | None
    modality: str
    source: Path | None
    _media: Media | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_media": None}

    def __call__(self, job: Job) -> Prepared | tuple[Status, str] | tuple[Status, str, bool]:
        """
        Returns:
            What `Forward` takes, or (status, reason), with True when that is of the first of several streams alone.
        """
        if self.prepare is None:
            raise ValueError("a reader without `prepare` reads nothing; give it the extractor's")
        clip = self.read_clip(job)
        if isinstance(clip, tuple):
            return clip
        try:
            return self.prepare(clip)
        except Missing as missing:
            return (Status.MISSING, str(missing), True) if missing.alone else (Status.MISSING, str(missing))

    def read_clip(self, job: Job) -> Clip | tuple[Status, str]:
        """The stored media of a job, or (status, reason)."""
        if self.source is None:
            return Clip(job.id, text=job.text, speaker=job.speaker, context=job.context, duration=job.duration)
        self._media = self._media or Media(self.source)
        entry = self._media[job.id]
        if entry.status != Status.OK:
            return Status(entry.status), f"{self.source.name} has no {self.modality} of this clip"
        if self.modality == "audio":
            return Clip(job.id, waveform=self._media.waveform(job.id), rate=self._media.rate, duration=job.duration)
        frames = [bytes(item) for item in entry.items]
        return Clip(job.id, frames=frames, frame_times=entry.times, places=entry.places, duration=job.duration)
