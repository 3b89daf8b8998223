"""Samplers: who is in a batch with whom, how often a clip is shown, and what a sampler refuses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ParamsError
from pipeline.models.batch import Targets
from pipeline.training.course import build_sampler
from pipeline.training.samplers.base import SAMPLERS

#: What a sampler goes by, to a number per clip.
BY = {"class_balanced": "emotion", "corpora": "corpus", "speakers": "speaker"}


def draw(name, size, seed=0, **labels):
    """Batches as lists of places; labels not given are those of a corpus that lacks them."""
    count = len(next(iter(labels.values())))
    given_ = {kind: torch.tensor(labels.get(kind, [-1] * count)) for kind in ("emotion", "speaker", "corpus")}
    domain = {"speaker": given_["speaker"], "corpus": given_["corpus"]}
    targets = Targets(given_["emotion"], torch.zeros(count, 0), None, domain, torch.ones(count))
    part = SAMPLERS.find(name)
    drawn = part(size, part.Options()).sample(targets, torch.full((count,), -1), torch.Generator().manual_seed(seed))
    return [batch.tolist() for batch in drawn]


groups = st.lists(st.integers(0, 4), min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)
@given(emotion=groups, size=st.integers(1, 40), seed=st.integers(0, 9))
def test_classes_are_balanced_in_every_batch_and_rare_ones_recycled(emotion, size, seed):
    batches = draw("class_balanced", size, seed, emotion=emotion)
    classes = sorted(set(emotion))
    most = max(emotion.count(one) for one in classes)
    share = max(2, -(-size // len(classes)))
    assert sum(map(len, batches)) == len(classes) * most
    for number, batch in enumerate(batches):
        counts = [sum(emotion[i] == one for i in batch) for one in classes]
        assert len(set(counts)) == 1
        # The last is smaller, or holds the one clip of each class that was left over.
        assert counts[0] == share or number == len(batches) - 1 and counts[0] <= share + 1
        assert counts[0] >= min(2, most)
    shown = [sum(batch.count(i) for batch in batches) for i in range(len(emotion))]
    for one in classes:
        times = [shown[i] for i in range(len(emotion)) if emotion[i] == one]
        assert max(times) - min(times) <= 1 and sum(times) == most


def test_the_share_of_the_source_system_and_an_epochs_length():
    """Seven classes, batches of 8: max(2, ⌈8/7⌉) = 2 of each; 7 · the clips of the largest class."""
    emotion = [k for k, count in enumerate((3, 1, 2, 5, 11, 4, 6)) for _ in range(count)]
    batches = draw("class_balanced", 8, emotion=emotion)
    assert sum(map(len, batches)) == 7 * 11 and [len(batch) for batch in batches] == [14, 14, 14, 14, 21]
    orders = {tuple(dict.fromkeys(emotion[i] for i in batch)) for batch in batches}
    assert len(orders) > 1  # classes stand in another order each time


@settings(max_examples=30, deadline=None)
@given(speaker=groups, unknown=st.integers(0, 9), size=st.integers(1, 12), seed=st.integers(0, 9))
def test_a_batch_is_of_one_speaker_and_the_unknown_are_by_themselves(speaker, unknown, size, seed):
    speaker = speaker + [-1] * unknown
    batches = draw("speakers", size, seed, speaker=speaker)
    assert sorted(sum(batches, [])) == list(range(len(speaker)))
    assert all(len({speaker[i] for i in batch}) == 1 and len(batch) <= size for batch in batches)
    assert len(batches) == sum(-(-speaker.count(one) // size) for one in set(speaker))


def test_speakers_follow_in_another_order_each_epoch():
    speaker = [i // 10 for i in range(80)]
    orders = {tuple(speaker[batch[0]] for batch in draw("speakers", 10, seed, speaker=speaker)) for seed in range(4)}
    assert len(orders) == 4 and tuple(range(8)) not in orders


def test_corpora_have_equal_shares():
    corpus = [0] * 100 + [1] * 7 + [2] * 30
    batches = draw("corpora", 10, corpus=corpus)
    assert [sorted(corpus[i] for i in batch) for batch in batches] == [[0] * 4 + [1] * 4 + [2] * 4] * 25
    assert sorted(i for batch in batches for i in batch if i < 100) == list(range(100))
    assert {i for batch in batches for i in batch} == set(range(137))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_the_same_state_of_chance_gives_the_same_epoch_and_the_next_another(name):
    labels = {kind: [i % 3 for i in range(30)] for kind in ("emotion", "speaker", "corpus")}
    assert draw(name, 8, 5, **labels) == draw(name, 8, 5, **labels) != draw(name, 8, 6, **labels)


@pytest.mark.parametrize("name", sorted(BY))
def test_labels_that_are_lacking_are_one_line(name):
    with pytest.raises(ParamsError, match=rf"^training.sampler: {name} needs clips [^\n]*; use clips[^\n]*$"):
        draw(name, 8, **{kind: [-1] * 5 for kind in BY.values()})


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_no_sampler_splits_the_dialogues_of_a_context(fabricate, name):
    params = fabricate(clips=10).params(context={"name": "attention"}, training={"sampler": {"name": name}})
    if name == "dialogues":
        assert build_sampler(params).whole
        return
    with pytest.raises(ParamsError, match=f"training.sampler: {name} splits dialogues"):
        build_sampler(params)
