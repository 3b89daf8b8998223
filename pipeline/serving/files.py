"""Predictions of many raw files: one after the other, in their order; what cannot be read has its reason in place of one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from pipeline.data.decode.errors import DecodeError

from .ahead import Look, look_ahead
from .encoding import Encoding
from .kept import Kept, note_facts
from .medium import Medium
from .prediction import NothingRead, Prediction
from .predictor import Predictor
from .source import Source

T = TypeVar("T")
#: Files that go through the encoders together.
BATCH = 8


@dataclass(frozen=True)
class Answer:
    """What is said of one file.

    Attributes:
        reason, detail: why there is no prediction, as in `pipeline.reasons`; "" where there is one.
    """

    medium: Medium
    prediction: Prediction | None
    reason: str = ""
    detail: str = ""


@contextmanager
def keeping(predictor: Predictor) -> Iterator[Predictor]:
    """A predictor whose features of files stay in the clip cache.

    Raises:
        CacheError: it cannot be opened or written.
    """
    with Kept(predictor.params, predictor.encoders, predictor.extractor) as kept:
        predictor.kept = kept
        try:
            yield predictor
        finally:
            predictor.kept = None


def predict_files(predictor: Predictor, media: Sequence[Medium]) -> Iterator[Answer]:
    """An answer for each, in their order. The next files are decoded while one batch goes through the encoders.

    Raises:
        WeightsError: the weights of an encoder or of the recogniser are not there.
    """
    sound = [medium for medium in media if not medium.reason]
    answers = iter(_predict_sound(predictor, sound))
    for medium in media:
        yield Answer(medium, None, medium.reason, medium.detail) if medium.reason else next(answers)


def _predict_sound(predictor: Predictor, media: Sequence[Medium]) -> Iterator[Answer]:
    modalities = tuple(dict.fromkeys(_modalities(predictor)))
    look = Look(modalities, pieces=any(run.model.spec.base is not None for run in predictor.runs))
    sources = itertools.chain.from_iterable(_recall(predictor, part) for part in _batched(media, 4 * BATCH))
    places = iter(media)
    for part in _batched(look_ahead(sources, look, predictor.params, predictor.looks), BATCH):
        if predictor.kept:
            note_facts(part)
        for said in predict_together(predictor, part):
            if isinstance(said, Prediction):
                yield Answer(next(places), said)
            else:
                yield Answer(next(places), None, said.reason, said.detail)


def _modalities(predictor: Encoding) -> Iterator[str]:
    """What has to be decoded of a file; recognised words are heard in its sound."""
    for stream in predictor.encoders.values():
        if stream.encoder == "import":
            continue
        yield "audio" if stream.modality == "text" and predictor.params.asr.weights else stream.modality


def _recall(predictor: Predictor, media: Sequence[Medium]) -> Iterator[Source]:
    """Files as they are predicted from; of those whose features are kept their length is known already."""
    sources = [predictor.source(medium.path) for medium in media]
    known = predictor.kept.recall(sources) if predictor.kept else [None] * len(sources)
    return (found or source for source, found in zip(sources, known, strict=True))


def predict_together(predictor: Predictor, sources: Sequence[Source]) -> list[Prediction | DecodeError | NothingRead]:
    """What `Predictor.predict` says of each file, or why it says nothing; their streams are encoded in batches."""
    said: dict[int, Prediction | DecodeError | NothingRead] = {}
    clips: list[int] = []
    for place, source in enumerate(sources):
        try:
            if predictor.is_film(source):
                said[place] = predictor.predict_film(source)
            else:
                clips.append(place)
        except (DecodeError, NothingRead) as error:
            said[place] = error
    cut = [sources[place] for place in clips]
    found = predictor.features_of(cut)
    looks = predictor.looks_of(cut, [features for features, _ in found])
    for place, source, (features, use), seen in zip(clips, cut, found, looks, strict=True):
        try:
            said[place] = predictor.judge(source, features, use, source.heard, seen)
        except NothingRead as error:
            said[place] = error
    return [said[place] for place in range(len(sources))]


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while part := list(itertools.islice(rest, size)):
        yield part
