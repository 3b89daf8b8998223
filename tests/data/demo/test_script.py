"""The script of the default corpus: its size, its balance and what each modality tells."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from pipeline.data.demo import emotions, script, words
from pipeline.data.demo.options import Options


@pytest.fixture(scope="module")
def lines():
    return script.write(Options())


def test_the_default_is_large_enough(lines):
    assert len({line.id for line in lines}) == len(lines) >= 240
    assert len({line.speaker.name for line in lines}) >= 12
    assert len({line.session for line in lines}) >= 6


def test_emotions_are_balanced_in_every_session(lines):
    for session in {line.session for line in lines}:
        counts = Counter(line.emotion for line in lines if line.session == session)
        assert set(counts) == set(emotions.EMOTIONS)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_speakers_stay_in_their_session_and_alternate(lines):
    sessions = defaultdict(set)
    dialogues = defaultdict(list)
    for line in lines:
        sessions[line.speaker.name].add(line.session)
        dialogues[line.dialogue].append(line)
    assert all(len(found) == 1 for found in sessions.values())
    for turns in dialogues.values():
        assert [line.turn for line in turns] == list(range(len(turns)))
        assert all(a.speaker.name != b.speaker.name for a, b in zip(turns, turns[1:], strict=False))


def test_at_most_one_modality_misleads_and_the_other_two_agree_on_the_truth(lines):
    for line in lines:
        wrong = [name for name in script.MODALITIES if line.shown[name] != line.emotion]
        lacking = [not line.picture, not line.sound, line.text is None]
        assert len(wrong) + sum(lacking) <= 1


def test_every_modality_alone_is_only_partly_informative(lines):
    for name in script.MODALITIES:
        share = sum(line.shown[name] == line.emotion for line in lines) / len(lines)
        assert 0.55 < share < 0.78


def test_a_few_clips_lack_a_modality(lines):
    for lacking in (
        [line for line in lines if not line.picture],
        [line for line in lines if not line.sound],
        [line for line in lines if line.text is None],
    ):
        assert 0 < len(lacking) < 0.06 * len(lines)


def test_each_emotion_is_confused_with_others_only():
    for table in emotions.CONFUSED.values():
        assert table.keys() == emotions.POINTS.keys()
        for emotion, others in table.items():
            assert others and emotion not in others and set(others) <= emotions.POINTS.keys()


def test_every_emotion_has_sentences_of_its_own_and_shared_ones():
    assert words.TELLING.keys() == emotions.POINTS.keys()
    shared = {emotion for names, _ in words.SHARED for emotion in names}
    assert shared == emotions.POINTS.keys()
    everything = [text for texts in words.TELLING.values() for text in texts]
    everything += [text for _, texts in words.SHARED for text in texts]
    assert len(set(everything)) == len(everything)
    assert all("{x}" in text for text in everything)
