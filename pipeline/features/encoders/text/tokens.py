"""Text to token ids, with the characters each token stands for."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash

from pipeline.features.encoders.extractor import Clip, Missing


@dataclass(frozen=True)
class Encoding:
    """A transcript (and the turns before it) as tokens.

    Attributes:
        ids: (L,) int64.
        types: (L,) int64, 0 for the context and 1 for the transcript when there are both, else 0.
        spans: (L, 2) characters of the transcript; meaningless where `own` is False.
        own: (L,) bool, tokens of the transcript itself.
        special: (L,) bool, markers such as [CLS].
    """

    ids: np.ndarray
    types: np.ndarray
    spans: np.ndarray
    own: np.ndarray
    special: np.ndarray

    def times(self, characters: int, duration: float) -> np.ndarray:
        """(L, 2) seconds, as if every character took equally long; markers sit at the clip's ends."""
        times = self.spans / characters * duration
        first = np.flatnonzero(self.own)[0]
        times[:first] = 0.0
        times[first:][~self.own[first:]] = duration
        return times.astype(np.float32)


@dataclass(frozen=True)
class Words:
    """The tokenizer of `random:` stand-ins: words and punctuation hashed into a vocabulary of `size`.

    No vocabulary file is needed and the same word always gets the same row of the embedding, which is
    what a stand-in needs; two words may share one. 0 is padding, 1 opens and 2 closes a text.
    """

    size: int

    def __call__(self, text: str, context: str | None, limit: int) -> Encoding:
        words = [(m.group().lower(), m.span()) for m in re.finditer(r"\w+|[^\w\s]", text)]
        before = [m.group().lower() for m in re.finditer(r"\w+|[^\w\s]", context or "")]
        words = words[: limit - 2]
        room = limit - 3 - len(words)
        before = before[-room:] if room > 0 else []
        head = [1, *map(self._id, before), 2] if before else [1]
        ids = [*head, *(self._id(word) for word, _ in words), 2]
        count = len(ids)
        own = np.zeros(count, bool)
        own[len(head) : len(head) + len(words)] = True
        spans = np.zeros((count, 2))
        spans[own] = np.array([span for _, span in words]).reshape(-1, 2)
        special = np.isin(np.arange(count), [0, len(head) - 1, count - 1])
        types = (np.arange(count) >= len(head)).astype(np.int64) if before else np.zeros(count, np.int64)
        return Encoding(np.array(ids), types, spans, own, special)

    def tail(self, text: str, limit: int) -> Encoding:
        """The newest `limit` words of `text`, without markers."""
        words = [(m.group().lower(), m.span()) for m in re.finditer(r"\w+|[^\w\s]", text)][-limit:]
        ids = np.array([self._id(word) for word, _ in words], np.int64)
        spans = np.array([span for _, span in words], np.float64).reshape(-1, 2)
        return Encoding(ids, np.zeros(len(ids), np.int64), spans, np.ones(len(ids), bool), np.zeros(len(ids), bool))

    def plain(self, text: str) -> Encoding:
        """All words of `text`, without markers."""
        return self.tail(text, len(text))

    def _id(self, word: str) -> int:
        return 3 + zlib.crc32(word.encode()) % (self.size - 3)

    @property
    def digest(self) -> str:
        return f"hashed words, {self.size}"


@dataclass(frozen=True)
class Fast:
    """A checkpoint's own tokenizer, as the JSON of the `tokenizers` library; workers need no more than that."""

    json: str = field(repr=False)
    unknown: int | None = None

    def __call__(self, text: str, context: str | None, limit: int) -> Encoding:
        tokenizer = _tokenizer(self.json)
        own = tokenizer.encode(text, add_special_tokens=False)
        before = tokenizer.encode(context, add_special_tokens=False) if context else None
        # The transcript comes first: the context gets the room it leaves, and loses its oldest tokens.
        own.truncate(max(1, limit - tokenizer.num_special_tokens_to_add(before is not None)))
        if before is not None:
            room = limit - tokenizer.num_special_tokens_to_add(True) - len(own.ids)
            if room > 0:
                before.truncate(room, direction="left")
            else:
                before = None
        whole = tokenizer.post_process(before, own) if before is not None else tokenizer.post_process(own)
        special = np.array(whole.special_tokens_mask, dtype=bool)
        sequence = np.array([-1 if s is None else s for s in whole.sequence_ids])
        mine = (sequence == (1 if before is not None else 0)) & ~special
        if self.unknown is not None and (np.array(whole.ids)[mine] == self.unknown).all():
            raise Missing("no word of the transcript is known to this encoder's tokenizer")
        return Encoding(
            np.array(whole.ids, np.int64),
            np.array(whole.type_ids, np.int64),
            np.array(whole.offsets, np.float64).reshape(-1, 2),
            mine,
            special,
        )

    def tail(self, text: str, limit: int) -> Encoding:
        """The newest tokens of `text` that fit `limit` together with the markers the tokenizer adds."""
        tokenizer = _tokenizer(self.json)
        found = tokenizer.encode(text, add_special_tokens=False)
        found.truncate(max(1, limit - tokenizer.num_special_tokens_to_add(False)), direction="left")
        whole = tokenizer.post_process(found)
        special = np.array(whole.special_tokens_mask, dtype=bool)
        spans = np.array(whole.offsets, np.float64).reshape(-1, 2)
        return Encoding(np.array(whole.ids, np.int64), np.zeros(len(special), np.int64), spans, ~special, special)

    def plain(self, text: str) -> Encoding:
        """All tokens of `text`, without markers."""
        found = _tokenizer(self.json).encode(text, add_special_tokens=False)
        spans = np.array(found.offsets, np.float64).reshape(-1, 2)
        count = len(found.ids)
        own = np.ones(count, bool)
        return Encoding(np.array(found.ids, np.int64), np.zeros(count, np.int64), spans, own, ~own)

    @property
    def digest(self) -> str:
        return xxhash.xxh3_128_hexdigest(self.json.encode())


@lru_cache(maxsize=4)
def _tokenizer(json: str) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def transcript(clip: Clip) -> str:
    """The clip's text.

    Raises:
        Missing: there is none, or it is blank.
    """
    if clip.text is None or not clip.text.strip():
        raise Missing("no transcript")
    return clip.text


def seconds(clip: Clip) -> float:
    """The clip's length; 1 when nobody measured it, so that times of a text-only clip are shares of it."""
    if clip.duration:
        return float(clip.duration)
    if clip.waveform is not None and len(clip.waveform):
        return len(clip.waveform) / clip.rate
    return 1.0


def encode_plainly(tokenizer: Words | Fast, text: str) -> Encoding:
    """All tokens of a text, without markers.

    Raises:
        Missing: it has none.
    """
    found = tokenizer.plain(text)
    if not len(found.ids):
        raise Missing("the transcript has no token")
    return found


def pad(rows: Sequence[np.ndarray], value: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of different lengths → (B, L) ids padded on the right, (B, L) mask."""
    length = max(len(row) for row in rows)
    ids = np.full((len(rows), length), value, np.int64)
    mask = np.zeros((len(rows), length), np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    return ids, mask
