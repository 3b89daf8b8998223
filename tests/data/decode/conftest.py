"""Small media files whose every frame carries its number, so that a test can tell which one it got."""

from __future__ import annotations

import io
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

BITS = 8


def coded(number: int, width: int = 128, height: int = 64) -> np.ndarray:
    """(H, W, 3) picture: `number` in black and white columns, most significant bit first."""
    picture = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        if number >> (BITS - 1 - bit) & 1:
            picture[:, bit * width // BITS : (bit + 1) * width // BITS] = 255
    return picture


def number(jpeg: bytes) -> int:
    """The number a decoded frame carries."""
    picture = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"), np.float32)
    columns = picture[picture.shape[0] // 4 : -picture.shape[0] // 4].mean(axis=0)
    width = len(columns) / BITS
    levels = [columns[int((b + 0.3) * width) : int((b + 0.7) * width) + 1].mean() for b in range(BITS)]
    return sum((level > 128) << (BITS - 1 - b) for b, level in enumerate(levels))


def film(
    path,
    times,
    *,
    rotation=0,
    picture=coded,
    sound=None,
    sound_rate=44100,
    sound_start=0.0,
    codec="libx264",
    options=None,
    gop=12,
    shape=None,
    layout="mono",
    last=None,
    size=(128, 64),
    format=None,
    container_options=None,
):
    """Write a film: frame i is shown from `times[i]` seconds on; `sound` (C, S) float32 from `sound_start` on."""
    base = Fraction(1, 90000)
    with av.open(str(path), "w", format=format, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = base
        stream.gop_size = gop
        if shape:
            stream.codec_context.sample_aspect_ratio = shape
        if rotation:
            stream.set_display_rotation(rotation)
        voice = None
        if sound is not None:
            voice = container.add_stream("aac", rate=sound_rate, layout=layout)
        for i, at in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture(i, *size)), format="rgb24")
            frame.pts, frame.time_base = round(at / base), base
            after = times[i + 1] if i + 1 < len(times) else at + (last or 0.04)
            frame.duration = round((after - at) / base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if voice is not None:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound, np.float32), format="fltp", layout=layout)
            frame.sample_rate, frame.pts = sound_rate, round(sound_start * sound_rate)
            frame.time_base = Fraction(1, sound_rate)
            container.mux(voice.encode(frame))
            container.mux(voice.encode(None))
    return path


def tracks(path, pictures, sound, *, video="libx264", audio="aac", rate=48000, layout="mono", late=0, leap=0, **options):
    """Write a film of `pictures` s of frames at 25 a second, frame i numbered i % 256, and `sound` s of a tone of 300 Hz.

    `late`: frames before the first picture. `leap`: seconds by which time jumps after half of both tracks.
    """
    with av.open(str(path), "w", **options) as container:
        film = container.add_stream(video, rate=25)
        film.width, film.height, film.pix_fmt = 128, 64, "yuv420p"
        voice = container.add_stream(audio, rate=rate, layout=layout) if audio else None
        packets, count = [], round(pictures * 25)
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(coded(i % 256), format="rgb24")
            frame.pts = i + late + (25 * leap if 2 * i >= count else 0)
            packets += film.encode(frame)
        packets += film.encode(None)
        if voice is not None:
            packets += spoken(voice, tone(sound, rate), rate, layout, leap)
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)):
            container.mux(packet)
    return path


def spoken(voice, wave, rate, layout="mono", leap=0):
    """Packets of a stream: the (S,) wave in all channels, or (C, S)."""
    wave = np.stack([wave] * voice.codec_context.layout.nb_channels) if wave.ndim == 1 else wave
    if voice.codec_context.name == "wmav2":
        voice.codec_context.bit_rate = 128000  # it has no rate of its own
    voice.codec_context.open()
    size = voice.codec_context.frame_size or 1024
    resampler = av.AudioResampler(format=voice.codec_context.format, layout=layout, rate=rate, frame_size=size)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave, np.float32), format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    packets = []
    for part in (*resampler.resample(frame), *resampler.resample(None)):
        if 2 * part.pts >= wave.shape[1]:
            part.pts += leap * rate
        packets += voice.encode(part)
    return packets + voice.encode(None)


def tone(seconds, rate, frequency=300.0, amplitude=0.3):
    """(S,) float32."""
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def scale(seconds, rate):
    """(S,) float32: 400 Hz in the first second, 500 Hz in the next, and so on."""
    return np.concatenate([tone(1.0, rate, 400.0 + 100 * second) for second in range(seconds)])


def pitch(wave, rate):
    """The strongest frequency, in Hz."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(wave.size)))
    return spectrum.argmax() * rate / wave.size


@pytest.fixture(scope="session")
def make():
    """The makers above."""
    return SimpleNamespace(
        film=film, coded=coded, number=number, tracks=tracks, spoken=spoken, tone=tone, scale=scale, pitch=pitch
    )
