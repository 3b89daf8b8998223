"""A synthetic voice: glottal pulses through formant filters, with the prosody of an emotion.

The source-filter model of Fant (1960) with the resonators of Klatt (1980), reduced to what a
listener needs to hear the mood: pitch level, range and contour, loudness, tempo, brightness,
breath, roughness and tremor. After the tables of Scherer (2003); the numbers are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from .cast import Speaker

#: First three formants in Hz of a low voice.
VOWELS = ((730, 1090, 2440), (530, 1840, 2480), (390, 1990, 2550), (570, 840, 2410), (440, 1020, 2240))


@dataclass(frozen=True)
class Prosody:
    """How an emotion sounds.

    Attributes:
        pitch: semitones above the speaker's own. spread: semitones of swing per syllable.
        slope: semitones from begin to end. loudness: dB. tempo: syllables per second.
        bright: 0 dull to 1 sharp. breath: share of noise. rough: pitch jitter. tremor: semitones at 7 Hz.
        stress: how sharply a syllable starts, 0 to 1.
        tract: scale of the formants; a smile shortens the tract and raises them (Tartter 1980).
    """

    pitch: float
    spread: float
    slope: float
    loudness: float
    tempo: float
    bright: float
    breath: float
    rough: float = 0.0
    tremor: float = 0.0
    stress: float = 0.3
    tract: float = 1.0


PROSODY: dict[str, Prosody] = {
    "neutral": Prosody(pitch=0, spread=1.0, slope=-1, loudness=-3, tempo=4.0, bright=0.4, breath=0.02),
    "joy": Prosody(
        pitch=5, spread=4.5, slope=2, loudness=1, tempo=5.0,
        bright=0.7, breath=0.03, stress=0.5, tract=1.15,
    ),
    "sadness": Prosody(
        pitch=-3, spread=0.5, slope=-4, loudness=-12, tempo=2.3,
        bright=0.08, breath=0.12, stress=0.1, tract=0.88,
    ),
    "anger": Prosody(
        pitch=2, spread=3.0, slope=-3, loudness=5, tempo=5.5,
        bright=1.0, breath=0.05, rough=0.10, stress=1.0,
    ),
    "surprise": Prosody(
        pitch=8, spread=2.5, slope=9, loudness=0, tempo=2.8,
        bright=0.55, breath=0.04, stress=0.6, tract=0.95,
    ),
    "fear": Prosody(
        pitch=9, spread=1.0, slope=0, loudness=-6, tempo=6.8,
        bright=0.5, breath=0.45, tremor=1.6, stress=0.4, tract=1.1,
    ),
    "disgust": Prosody(
        pitch=-6, spread=2.0, slope=-3, loudness=-3, tempo=2.2,
        bright=0.75, breath=0.15, rough=0.25, stress=0.5, tract=0.82,
    ),
}  # fmt: skip


def syllables(emotion: str, duration: float, generator: np.random.Generator) -> np.ndarray:
    """Begin and end of each syllable, seconds, shape (N, 2). The lips move with these."""
    step = 1 / (PROSODY[emotion].tempo * generator.uniform(0.92, 1.08))
    begins = np.arange(0.08, max(duration - 0.1, 0.09), step)
    begins = begins + generator.uniform(-0.08, 0.08, size=len(begins)) * step
    ends = np.minimum(begins + 0.78 * step, duration - 0.02)
    return np.stack([begins, ends], axis=1)[ends - begins > 0.03]


def openness(marks: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """How far speech opens the mouth at each time, in [0, 1]."""
    position = (seconds[:, None] - marks[:, 0]) / (marks[:, 1] - marks[:, 0])
    return np.where((position > 0) & (position < 1), np.sin(np.pi * np.clip(position, 0, 1)), 0).max(axis=1, initial=0)


def speak(
    emotion: str, person: Speaker, marks: np.ndarray, arousal: np.ndarray, duration: float, rate: int,
    generator: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Say something without words.

    Args:
        marks: syllables, (N, 2) seconds.
        arousal: course over the clip in [-1, 1], any length; raises pitch and loudness.

    Returns:
        (duration * rate,) float32 mono in [-1, 1].
    """
    prosody = PROSODY[emotion]
    count = round(duration * rate)
    seconds = np.arange(count) / rate
    strain = np.interp(seconds, np.linspace(0, duration, len(arousal)), arousal)
    swing = np.zeros(count)
    for index, (begin, end) in enumerate(marks):
        inside = (seconds >= begin) & (seconds < end)
        sign = 1 if index % 2 == 0 else -0.6
        swing[inside] = sign * np.sin(np.pi * (seconds[inside] - begin) / (end - begin))
    semitones = (
        prosody.pitch + generator.normal(0, 0.5) + prosody.spread * swing + prosody.slope * (seconds / duration - 0.5)
        + prosody.tremor * np.sin(2 * np.pi * 7 * seconds) + 1.5 * strain
    )  # fmt: skip
    # Jitter changes from period to period, not from sample to sample: hold it for 6 ms.
    hold = max(1, rate * 6 // 1000)
    jitter = np.repeat(generator.normal(0, 1, size=count // hold + 1), hold)[:count] * prosody.rough
    pitch = person.pitch * 2 ** ((semitones + 6 * jitter) / 12)
    source = _source(pitch, rate, prosody, person, generator)
    sound = _syllables(source, marks, person, prosody, rate, generator)
    sound *= 10 ** ((3 * strain) / 20)
    level = np.sqrt(np.mean(sound**2)) + 1e-9
    target = 10 ** ((-20 + prosody.loudness + person.loudness + generator.normal(0, 1)) / 20)
    room = generator.normal(0, 10 ** (-62 / 20), size=count)
    return np.clip(sound / level * target + room, -0.98, 0.98).astype(np.float32)


def _source(pitch: np.ndarray, rate: int, prosody: Prosody, person: Speaker, generator: np.random.Generator) -> np.ndarray:
    """Glottal pulses with breath; dull voices lose their upper harmonics."""
    phase = np.cumsum(pitch / rate) % 1.0
    # A pulse that closes fast is bright; the opening share follows the brightness.
    closing = 0.45 - 0.38 * prosody.bright
    pulse = np.where(phase < 1 - closing, phase / (1 - closing), (1 - phase) / closing) - 0.5
    source = np.diff(pulse, prepend=pulse[0]) * (rate / 4000) * (0.4 + prosody.bright) + 0.5 * pulse
    breath = prosody.breath + person.breath
    source = (1 - breath) * source + breath * generator.normal(0, 0.6, size=len(pitch))
    pole = 0.9 * (1 - prosody.bright)
    return lfilter([1 - pole], [1, -pole], source)


def _syllables(
    source: np.ndarray, marks: np.ndarray, person: Speaker, prosody: Prosody, rate: int,
    generator: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """The source through a vowel's formants, syllable by syllable."""
    out = np.zeros(len(source))
    for begin, end in marks:
        first, last = int(begin * rate), min(int(end * rate), len(source))
        vowel = VOWELS[generator.integers(len(VOWELS))]
        part = source[first:last]
        for frequency, width in zip(vowel, (80, 100, 140), strict=True):
            part = part + 1.5 * _resonate(part, frequency * person.tract * prosody.tract, width, rate)
        rise = np.linspace(0, 1, len(part), endpoint=False)
        attack = np.minimum(rise / (0.35 - 0.3 * prosody.stress), 1)
        release = np.minimum((1 - rise) / 0.3, 1)
        # The consonant: a puff of noise where the syllable starts.
        puff = generator.normal(0, 1, size=len(part)) * np.exp(-rise * 14) * 0.3 * prosody.stress
        out[first:last] += (part + puff * np.abs(part).mean()) * attack * release
    return out


def _resonate(signal: np.ndarray, frequency: float, width: float, rate: int) -> np.ndarray:
    """A second-order resonator of unit gain at zero frequency (Klatt 1980, eq. 1 and 2)."""
    radius = np.exp(-np.pi * width / rate)
    second = -(radius**2)
    first = 2 * radius * np.cos(2 * np.pi * frequency / rate)
    return lfilter([1 - first - second], [1, -first, -second], signal)
