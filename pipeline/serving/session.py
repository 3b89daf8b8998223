"""A conversation as it goes on: segment by segment, each judged from itself and from what came before."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pipeline.data.decode.audio import loudest
from pipeline.data.faces.find import find_face
from pipeline.errors import UserError
from pipeline.features import transcribe
from pipeline.features.encoders.extractor import Clip, Missing, Turn
from pipeline.params import Stream
from pipeline.runs.predict import Before, Features
from pipeline.storage import media_store
from pipeline.storage.feature_store import Status

from .dialogue import name_voices
from .prediction import StreamUse, name_chances, name_values
from .predictor import Predictor
from .running import RunningTrunk
from .source import missing_reason


class Segment(NamedTuple):
    """A piece of a conversation; what is None is not there.

    Attributes:
        start, end: seconds.
        text: what is said. speaker: who says it.
        waveform: (S,) float32 mono in [-1, 1] at the rate that `decode.audio.rate` says.
        frames: JPEG bytes in time order. times: (T, 2) seconds of each from the segment's start.
    """

    start: float
    end: float
    text: str | None = None
    speaker: str | None = None
    waveform: np.ndarray | None = None
    frames: list[bytes] | None = None
    times: np.ndarray | None = None


@dataclass(frozen=True)
class Step:
    """What is said of a segment.

    Attributes:
        number: from 0 since the last reset. start, end: seconds.
        emotions: class → probability, likeliest first. dimensions: name → value in [-1, 1].
        streams: use of each. text: words given or recognised.
        latency: seconds from the segment's arrival to this answer.
    """

    number: int
    start: float
    end: float
    emotions: dict[str, float]
    dimensions: dict[str, float]
    streams: dict[str, StreamUse]
    text: str | None
    speaker: str | None
    latency: float

    @property
    def emotion(self) -> str | None:
        """The likeliest."""
        return next(iter(self.emotions), None)


@dataclass
class Session:
    """One conversation. A segment costs what is new in it: features of earlier ones are kept, and the keys and values of a
    language model's lower layers.

    A model with a context sees as many earlier segments as in training, each with all its streams; streams of text see as many
    turns as they were made with. An answer is that of `Predictor` for the same clip and context.

    Args:
        window: earlier turns that the prompt of a trunk may grow to; 0 = as many as it was made with.
    """

    predictor: Predictor
    window: int = 0
    #: Answers, the newest last.
    results: list[Step] = field(default_factory=list)
    _turns: list[Turn] = field(default_factory=list, repr=False)
    _before: list[dict[str, Features]] = field(default_factory=list, repr=False)
    _trunks: dict[str, RunningTrunk] = field(default_factory=dict, repr=False)

    #: Answers kept.
    KEPT = 64

    def load(self) -> None:
        """Load every encoder now, so that the first segment waits for none."""
        for name, stream in self.predictor.encoders.items():
            if stream.encoder != "import":
                self.predictor.forward(name)

    def reset(self) -> None:
        """Another conversation begins; encoders stay loaded."""
        self.results.clear()
        self._turns.clear()
        self._before.clear()
        for one in self._trunks.values():
            one.forget()

    def push(self, segment: Segment) -> Step:
        """Judge the next segment.

        Raises:
            UserError: it has nothing that the model reads.
        """
        begun = time.perf_counter()
        predictor = self.predictor
        text = self._listen(segment)
        features: dict[str, Features] = {}
        use: dict[str, StreamUse] = {}
        for name, stream in predictor.encoders.items():
            found = self._encode(name, stream, segment, text)
            if isinstance(found, StreamUse):
                use[name] = found
            else:
                features[name], use[name] = found, StreamUse(Status.OK, len(found[0]))
        if not features:
            why = "; ".join(f"{name}: {one.reason}" for name, one in use.items())
            raise UserError(f"the segment from {segment.start:g} s has nothing this model can read ({why}).")
        window = max(run.model.spec.turns[0] for run in predictor.runs)
        earlier = self._before[-window:] if window else []
        voices = name_voices(self._turns, segment.speaker)[-len(earlier) :] if earlier else []
        before = [Before(one, voice) for one, voice in zip(earlier, voices, strict=True)]
        output = predictor.estimate(features, before, 0 if segment.speaker else -1)
        self._before = [*self._before, features][-max(window, 1) :]
        self._turns = [*self._turns, Turn(segment.speaker, text)][-max(self._reach(), window, 1) :]
        step = Step(
            number=self.results[-1].number + 1 if self.results else 0,
            start=segment.start,
            end=segment.end,
            emotions=name_chances(output),
            dimensions=name_values(output),
            streams=use,
            text=text,
            speaker=segment.speaker,
            latency=time.perf_counter() - begun,
        )
        self.results = [*self.results, step][-self.KEPT :]
        return step

    def _reach(self) -> int:
        """Earlier turns that an encoder of text reads, at most."""
        return max((self.predictor.extractor(name).turns for name in self.predictor.encoders), default=0)

    def _listen(self, segment: Segment) -> str | None:
        if segment.text and segment.text.strip():
            return segment.text.strip()
        asked = any(stream.source == transcribe.TABLE for stream in self.predictor.encoders.values())
        if not asked or not self.predictor.params.asr.weights or segment.waveform is None or self._is_silent(segment.waveform):
            return None
        return self.predictor.hear(segment.waveform).strip() or None

    def _is_silent(self, waveform: np.ndarray) -> bool:
        params = self.predictor.params
        return loudest(waveform, params.decode.audio.rate) < params.integrity.silence

    def _encode(self, name: str, stream: Stream, segment: Segment, text: str | None) -> Features | StreamUse:
        if stream.encoder == "trunk":
            if not text:
                self._run_on(name).pass_over()
                return StreamUse(Status.MISSING, reason="nothing is said")
            try:
                found = self._run_on(name).push(segment.speaker, text, max(segment.end - segment.start, 0.0) or 1.0, self._turns)
            except Missing as error:
                return StreamUse(Status.MISSING, reason=missing_reason(error))
            return self.predictor.round(name, found)
        return self.predictor.encode(self._make_reader(segment, text), f"segment {len(self.results)}", name)

    def _run_on(self, name: str) -> RunningTrunk:
        if name not in self._trunks:
            self._trunks[name] = RunningTrunk(self.predictor.extractor(name), self.predictor.forward(name), self.window)
        return self._trunks[name]

    def _make_reader(self, segment: Segment, text: str | None) -> Callable[[Stream], Clip]:
        """Segment → what the encoder of a stream reads of it."""
        length, params = segment.end - segment.start, self.predictor.params

        def read(stream: Stream) -> Clip:
            if stream.encoder == "import":
                raise Missing("ready-made features are of files, not of a stream")
            if stream.modality == "text":
                if not text:
                    raise Missing("nothing is said")
                context = tuple(self._turns)
                return Clip("segment", text=text, speaker=segment.speaker, context=context, duration=length)
            if stream.modality == "audio":
                if segment.waveform is None:
                    raise Missing("there is no sound")
                if self._is_silent(segment.waveform):
                    raise Missing("the sound is silent")
                return Clip("segment", waveform=segment.waveform, rate=params.decode.audio.rate, duration=length)
            if not segment.frames or segment.times is None:
                raise Missing("there are no pictures")
            if stream.modality == "video":
                return Clip("segment", frames=segment.frames, frame_times=segment.times, duration=length)
            sound = None
            if params.faces.choice == "speaking" and segment.waveform is not None:
                sound = (segment.waveform, params.decode.audio.rate)
            entry = find_face(params.faces, (segment.frames, segment.times), sound=sound)
            if entry.status == Status.MISSING:
                raise Missing(entry.reason)
            return Clip("segment", frames=media_store.split_files(entry), frame_times=entry.times, duration=length)

        return read
