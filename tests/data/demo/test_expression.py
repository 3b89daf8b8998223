"""Face and voice follow the emotion they are told to show."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.demo import cast, emotions, expression, face, voice

PERSON = cast.speaker(0, 0, 0)


def _face(emotion: str) -> np.ndarray:
    valence, arousal, _ = emotions.POINTS[emotion]
    return face.draw(PERSON, expression.express(emotion, valence, arousal, 0.0, 0.0), (0.0, 0.0), 96).astype(float)


def test_every_pair_of_emotions_looks_different():
    drawn = {emotion: _face(emotion) for emotion in emotions.EMOTIONS}
    for first in drawn:
        for second in drawn:
            if first != second:
                assert np.abs(drawn[first] - drawn[second]).mean() > 1.0


def test_valence_lifts_the_corners_of_the_mouth_and_arousal_the_lids():
    low, high = (expression.express("neutral", value, 0.0, 0.0, 0.0) for value in (-0.5, 0.5))
    assert high.smile > low.smile
    calm, tense = (expression.express("neutral", 0.0, value, 0.0, 0.0) for value in (-0.5, 0.5))
    assert tense.eye > calm.eye


def test_speech_opens_the_mouth_and_a_blink_shuts_the_eyes():
    still = expression.express("joy", 0.7, 0.4, 0.0, 0.0)
    assert expression.express("joy", 0.7, 0.4, 1.0, 0.0).open > still.open
    assert expression.express("joy", 0.7, 0.4, 0.0, 0.9).eye < 0.2 * still.eye


def _voice(emotion: str) -> np.ndarray:
    generator = np.random.default_rng(5)
    marks = voice.syllables(emotion, 2.0, generator)
    return voice.speak(emotion, PERSON, marks, np.zeros(10), 2.0, 16000, generator)


def _brightness(sound: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(sound)) ** 2
    return float((power * np.fft.rfftfreq(len(sound), 1 / 16000)).sum() / power.sum())


def test_anger_is_louder_faster_and_brighter_than_sadness():
    anger, sadness = _voice("anger"), _voice("sadness")
    assert np.sqrt(np.mean(anger**2)) > 2 * np.sqrt(np.mean(sadness**2))
    assert _brightness(anger) > 1.5 * _brightness(sadness)
    generator = np.random.default_rng(1)
    assert len(voice.syllables("anger", 2.0, generator)) > len(voice.syllables("sadness", 2.0, generator))


@pytest.mark.parametrize("emotion", emotions.EMOTIONS)
def test_sound_has_the_length_asked_for_and_never_clips(emotion):
    sound = _voice(emotion)
    assert sound.shape == (32000,) and sound.dtype == np.float32
    assert np.isfinite(sound).all() and np.abs(sound).max() < 0.99


@pytest.mark.parametrize("emotion", emotions.EMOTIONS)
def test_the_course_stays_near_the_emotion(emotion):
    seconds = np.arange(24) / 12
    courses = [emotions.trajectory(emotion, 1.0, seconds, 2.0, np.random.default_rng(seed)).mean(axis=0) for seed in range(40)]
    assert np.mean(courses, axis=0) == pytest.approx(np.array(emotions.POINTS[emotion][:2]) * 0.88, abs=0.1)


def test_the_mouth_is_shut_between_syllables():
    marks = np.array([[0.1, 0.3], [0.5, 0.7]])
    assert voice.openness(marks, np.array([0.0, 0.2, 0.4, 0.6])) == pytest.approx([0, 1, 0, 1])
    assert voice.openness(np.zeros((0, 2)), np.array([0.0, 0.2])) == pytest.approx([0, 0])
