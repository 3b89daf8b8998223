"""A raw media file as the extractors saw clips in training: same sampling, same codecs, same limits, same faces.

Every look at the file happens in a worker process with a time limit, as in the stages, so that a damaged
file costs one line (see `looks`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pipeline.data import media
from pipeline.data.decode.audio import loudest
from pipeline.data.decode.errors import DecodeError
from pipeline.data.decode.probe import probe
from pipeline.data.faces.find import find_face
from pipeline.data.fact import Fact, examine_file
from pipeline.errors import UserError
from pipeline.features import transcribe
from pipeline.features.encoders.extractor import Clip, Missing
from pipeline.params import Params, Stream
from pipeline.storage import flac, media_store
from pipeline.storage.feature_store import Entry, Status
from pipeline.workers.outcome import Outcome

from .looks import Looks
from .spoken import Spoken

P = TypeVar("P")
V = TypeVar("V")


@dataclass(frozen=True)
class Source:
    """One file, decoded once however many streams read it.

    Args:
        path: media file or folder of frame images.
        params: `decode`, `faces`, `integrity.silence` and `run` of the run that is served.
        start, end: cut in seconds of the medium's time; None is its own start or end.
        spoken: words that came with it.
        hear: (S,) float32 waveform → what is said in it; None when no recogniser is set.
        known: what was found out about the file before; None = nothing.
        looks: processes that look at the file; shared by the files of one program.
        decoded: what became of the looks at it, by what was looked for.

    Raises:
        UserError: the cut is empty; (on first use) DecodeError when the file is absent or no medium.
    """

    path: Path
    params: Params
    start: float | None = None
    end: float | None = None
    spoken: Spoken = Spoken()
    hear: Callable[[np.ndarray], str] | None = None
    known: Fact | None = None
    looks: Looks = field(default_factory=Looks, repr=False, compare=False)
    decoded: dict[str, Outcome[str, Any]] = field(default_factory=dict, repr=False, compare=False)
    _recognised: list[str] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        low = self.start or 0.0
        if low < 0 or (self.end is not None and self.end <= low):
            raise UserError(
                f"{self.path}: the cut from {low:g} s to {self.end if self.end is not None else 'the end'} is "
                "empty; give 0 <= start < end."
            )

    @property
    def facts(self) -> Fact:
        """What the manifest would know of the file.

        Raises:
            DecodeError: it is absent, no medium, or not whole.
        """
        if self.known is not None:
            return self.known
        if Path(self.path).is_dir():
            found = self._value(self._look("facts", probe, self.path))
            return Fact(duration=found.duration, video=True)
        return self._value(self._look("facts", examine_file, str(self.path)))

    @property
    def duration(self) -> float:
        """Seconds of the clip."""
        whole = self.facts.duration
        return max(0.0, (whole if self.end is None else min(self.end, whole)) - (self.start or 0.0))

    @property
    def is_long(self) -> bool:
        """Whether the film has more frames than a clip may have."""
        video = self.params.decode.video
        return int(self.duration * video.fps + 0.5) > video.max_frames

    @property
    def bare(self) -> Source:
        """The file with nothing of this process: it looks where it is, at what nobody has looked at."""
        run = self.params.run.model_copy(update={"workers": 0})
        params = self.params.model_copy(update={"run": run})
        return replace(self, params=params, spoken=Spoken(), hear=None, looks=Looks(), decoded={})

    def clip(self, stream: Stream) -> Clip:
        """The clip as the encoder of `stream` reads it.

        Raises:
            Missing: the file has no such modality, or it is silent; the reason is for people.
            DecodeError: it has, but it cannot be decoded.
        """
        name, length, modality = Path(self.path).stem, self.duration, stream.modality
        if stream.encoder == "import":  # looked up by clip id
            return Clip(name, text=self.spoken.text, duration=length)
        if modality == "text":
            return Clip(name, text=self._text(stream), speaker=self.spoken.speaker, context=self.spoken.context, duration=length)
        if modality == "audio":
            return Clip(name, waveform=self._waveform(), rate=self.params.decode.audio.rate, duration=length)
        found = self._pictures(modality)
        jpegs, places = media_store.split_files(found), found.extras.get("places")
        return Clip(name, frames=jpegs, frame_times=found.times, places=places, duration=length)

    def look(self, modality: str) -> None:
        """Look at what streams of a modality read, so that it is there when they do.

        Raises:
            Missing, DecodeError: see `clip`.
        """
        if modality == "audio":
            self._require("audio", self.facts.audio, "the file has no sound")
            self._sound()
        elif modality != "text":
            self._pictures(modality)

    def words(self) -> str | None:
        """What is said: the text that was given, else what is recognised where a recogniser is set; None without either."""
        if self.spoken.text and self.spoken.text.strip():
            return self.spoken.text
        if self.hear is None:
            return None
        try:
            return self._listen() or None
        except Missing:
            return None

    @property
    def heard(self) -> str | None:
        """What was recognised, once a stream has asked for it."""
        return self._recognised[0] if self._recognised else None

    def _text(self, stream: Stream) -> str:
        if self.spoken.text and self.spoken.text.strip():
            return self.spoken.text
        if stream.source != transcribe.TABLE or self.hear is None:
            raise Missing("no text was given")
        if not (text := self._listen()):
            raise Missing("no text was given, and no speech was recognised")
        return text

    def _listen(self) -> str:
        """What is said, recognised once."""
        assert self.hear is not None, "asked for by `_text` alone, when there is one"
        if not self._recognised:
            try:
                self._recognised.append(self.hear(self._waveform()).strip())
            except (Missing, DecodeError) as error:
                raise Missing(f"no text was given, and {missing_reason(error)}") from error
        return self._recognised[0]

    def _pictures(self, modality: str) -> Entry:
        """Sampled frames, or the crops of one face."""
        self._require("video", self.facts.video, "the file has no video")
        entry = self._value(self._frames() if modality == "video" else self._faces())
        if entry.status == Status.MISSING:
            raise Missing(entry.reason)
        return entry

    def _require(self, modality: str, there: bool, absent: str) -> None:
        if modality in self.facts.lost:
            raise DecodeError(*self.facts.lost[modality], self.path)
        if not there:
            raise Missing(absent)

    def _frames(self) -> Outcome[str, Entry]:
        return self._look("frames", partial(media.decode_frames, self.params.decode.video), self._cut)

    def _faces(self) -> Outcome[str, Entry]:
        if "faces" in self.decoded:
            return self.decoded["faces"]
        if not (seen := self._frames()).ok:
            return seen
        folder = Path(self.path) if Path(self.path).is_dir() else None
        find = partial(find_face, self.params.faces, folder=folder, start=self.start, sound=self._speech)
        return self._look("faces", find, (media_store.split_files(seen.value), seen.value.times))

    def _sound(self) -> Outcome[str, Entry]:
        return self._look("sound", partial(media.decode_sound, self.params.decode.audio.rate), self._cut)

    @property
    def _speech(self) -> tuple[np.ndarray, int] | None:
        """The sound by which the face that speaks is known; None when it is not asked for, or there is none."""
        if self.params.faces.choice != "speaking":
            return None
        try:
            return self._waveform(), self.params.decode.audio.rate
        except (Missing, DecodeError):
            return None

    def _waveform(self) -> np.ndarray:
        self._require("audio", self.facts.audio, "the file has no sound")
        # Training reads FLAC: this one was written and is read the same way.
        wave = flac.decode(self._value(self._sound()).values.tobytes())[0]
        if loudest(wave, self.params.decode.audio.rate) < self.params.integrity.silence:
            raise Missing("the sound is silent")
        return wave

    @property
    def _cut(self) -> media.Cut:
        return media.Cut(str(self.path), self.start, self.end)

    def _look(self, what: str, function: Callable[[P], V], payload: P) -> Outcome[str, V]:
        if what not in self.decoded:
            self.decoded[what] = self.looks.one(self.params, function, str(self.path), payload)
        return self.decoded[what]

    def _value(self, outcome: Outcome[str, V]) -> V:
        """
        Raises:
            DecodeError: it went wrong; also when the decoder crashed or took too long.
        """
        if not outcome.ok:
            raise DecodeError(outcome.reason, outcome.detail, self.path)
        return outcome.value


def missing_reason(error: Missing | DecodeError) -> str:
    """One line without the path, for the list of streams."""
    if isinstance(error, DecodeError):
        return f"{error.reason}: {error.detail}"
    return " ".join(str(error).split())
