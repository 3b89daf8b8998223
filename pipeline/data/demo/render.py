"""One line of the script becomes one mp4 file with its truth."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pipeline.storage.atomic import atomic_file

from . import emotions, expression, face, voice
from .options import Options
from .script import Line

#: Without macroblock tree and lookahead: with them libx264 decides differently from process to process.
_X264 = {"crf": "21", "preset": "veryfast", "x264-params": "mbtree=0:rc-lookahead=0"}


@dataclass(frozen=True)
class Truth:
    """What is known of a clip by construction.

    Attributes:
        times: (T,) seconds of the frames from clip start.
        affect: (T, 2) valence and arousal in [-1, 1].
        dominance: of the clip, in [-1, 1].
    """

    times: np.ndarray
    affect: np.ndarray
    dominance: float


def truth(line: Line, options: Options) -> Truth:
    """The course of what is felt, at every frame."""
    generator = np.random.default_rng([*line.seed, 1])
    times = np.round(np.arange(round(line.duration * options.fps)) / options.fps, 4)
    affect = emotions.trajectory(line.emotion, line.intensity, times, line.duration, generator)
    dominance = emotions.POINTS[line.emotion][2] * line.intensity + generator.normal(0, 0.04)
    return Truth(times, affect, round(float(np.clip(dominance, -1, 1)), 4))


def render(line: Line, options: Options, path: Path) -> None:
    """Write the clip: H.264 and AAC in mp4, one thread, no dates, the same bytes every time."""
    known = truth(line, options)
    marks = voice.syllables(line.shown["voice"], line.duration, np.random.default_rng([*line.seed, 2]))
    frames = pictures(line, known, marks, options) if line.picture else None
    sound = None
    if line.sound:
        generator = np.random.default_rng([*line.seed, 3])
        arousal = _shown(line, "voice", known, options)[:, 1]
        emotion = line.shown["voice"]
        sound = voice.speak(emotion, line.speaker, marks, arousal, line.duration, options.rate, generator)
    with atomic_file(path) as temporary:
        mux(temporary, frames, sound, options.fps, options.rate)


def pictures(line: Line, known: Truth, marks: np.ndarray, options: Options) -> np.ndarray:
    """(T, size, size, 3) uint8 RGB frames of the clip."""
    generator = np.random.default_rng([*line.seed, 4])
    affect = _shown(line, "face", known, options)
    speech = voice.openness(marks, known.times)
    blink = int(generator.integers(len(known.times)))
    phase = generator.uniform(0, 2 * np.pi, size=2)
    light = _light(line.speaker.light + generator.normal(0, 0.05), options.size)
    frames = []
    for index, time in enumerate(known.times):
        valence, arousal = affect[index]
        state = expression.express(line.shown["face"], valence, arousal, speech[index], 0.9 if index == blink else 0.0)
        reach = 0.008 + 0.01 * max(0.0, arousal)
        sway = (reach * np.sin(3 * time + phase[0]), reach * np.sin(5 * time + phase[1]))
        picture = face.draw(line.speaker, state, sway, options.size) * light
        # Grain in steps of the picture, not per channel, as a cheap camera has it.
        picture += generator.normal(0, 3, size=(options.size, options.size, 1))
        frames.append(np.clip(picture, 0, 255).astype(np.uint8))
    return np.stack(frames)


def _shown(line: Line, modality: str, known: Truth, options: Options) -> np.ndarray:
    """(T, 2) valence and arousal as one modality shows them: the truth, or another emotion's course."""
    if line.shown[modality] == line.emotion:
        return known.affect
    generator = np.random.default_rng([*line.seed, 5])
    return emotions.trajectory(line.shown[modality], line.intensity, known.times, line.duration, generator)


def _light(slope: float, size: int) -> np.ndarray:
    """(1, size, 1) factors: brighter on one side."""
    return (1 + slope * np.linspace(-1, 1, size))[None, :, None]


def mux(path: Path, frames: np.ndarray | None, sound: np.ndarray | None, fps: int, rate: int) -> None:
    """Write the tracks that there are; `sound` is mono float32."""
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        video = audio = None
        if frames is not None:
            video = container.add_stream("libx264", rate=fps, options=_X264)
            video.height, video.width = frames.shape[1:3]
            video.pix_fmt = "yuv420p"
            _repeatable(video.codec_context)
        if sound is not None:
            audio = container.add_stream("aac", rate=rate, layout="mono")
            audio.bit_rate = 48000
            _repeatable(audio.codec_context)
        if frames is not None and video is not None:
            for index, picture in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, fps)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if sound is not None and audio is not None:
            wave = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            wave.rate, wave.pts, wave.time_base = rate, 0, Fraction(1, rate)
            container.mux(audio.encode(wave))
            container.mux(audio.encode(None))


def _repeatable(context: av.CodecContext) -> None:
    context.thread_count = 1
    context.flags |= av.codec.context.Flags.bitexact
