"""Text to token ids, with the characters each token stands for."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from pipeline import weights
from pipeline.errors import WeightsError
from pipeline.features.encoders.extractor import Clip, Missing
from pipeline.storage import memo
from pipeline.weights import gguf

#: Files a tokenizer may keep its vocabulary in.
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
#: What turns the files of a checkpoint into a tokenizer.
LIBRARIES = ("transformers", "tokenizers", "sentencepiece", "tiktoken")
#: What the families need to know of a configuration.
CONFIGURED = ("vocab_size", "max_position_embeddings", "num_hidden_layers", "pad_token_id")


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


def decoder(source: object, folder: Path) -> Any:
    """The library's own tokenizer of a checkpoint, for turning ids back into text.

    Raises:
        WeightsError: there is none.
    """
    from transformers import AutoTokenizer

    # Without a vocabulary the library makes an empty tokenizer and says nothing.
    if not any(file for pattern in VOCABULARIES for file in folder.glob(pattern)):
        raise WeightsError(f"{source} has no tokenizer; fetch its tokenizer.json (or vocab.txt) too.")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError) as error:
        raise WeightsError(
            f"{source} has no tokenizer that can be read ({' '.join(str(error).split())[:120]}); "
            "fetch its tokenizer.json (or vocab.txt) too."
        ) from error


def of_checkpoint(source: object, folder: Path) -> tuple[Fast, int]:
    """The tokenizer in a checkpoint's folder (or GGUF file), and the most tokens it says the model takes.

    Raises:
        WeightsError: there is none, or it has no fast version.
    """
    if folder.suffix == gguf.SUFFIX:
        text, limit = gguf.tokenizer(folder)
        return Fast(text), limit

    def ask() -> tuple[str, int | None, int]:
        tokenizer = decoder(source, folder)
        if not tokenizer.is_fast:
            raise WeightsError(
                f"{source}: {type(tokenizer).__name__} tells no character offsets; save the model "
                "with a fast tokenizer (tokenizer.json)."
            )
        backend = tokenizer.backend_tokenizer.to_str()
        return backend, tokenizer.unk_token_id, int(min(tokenizer.model_max_length, 10**6))

    texts = {file.name: weights.sha256(file) for pattern in weights.TEXT for file in sorted(folder.glob(pattern))}
    backend, unknown, limit = memo.ask_library("fast tokenizer", ask, libraries=LIBRARIES, about=texts)
    return Fast(backend, unknown), limit


def configured(source: weights.Source, kind: str, says: dict, classes: Callable[[object, str], tuple]) -> dict:
    """What a text model's configuration says, with the library's defaults for what `says` leaves out.

    Args:
        says: config.json of a checkpoint; the architecture of a stand-in, which is closed to unknown keys.
        classes: model and configuration class of a `model_type`; raises WeightsError for a wrong one.

    Raises:
        ParamsError: a stand-in's architecture does not fit.
    """

    def ask() -> dict:
        from pipeline.weights import pretrained

        kind_of = classes(source, kind)[1]
        config = pretrained.configuration(kind_of, says) if source.random else kind_of(**says)
        return {key: getattr(config, key, None) for key in CONFIGURED}

    # The family's module stands for what it accepts.
    about = [classes.__module__.rpartition(".")[2], kind, source.random, says]
    return memo.ask_library("text configuration", ask, libraries=("transformers",), about=about)


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


def pad(rows: Sequence[np.ndarray], value: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of different lengths → (B, L) ids padded on the right, (B, L) mask."""
    length = max(len(row) for row in rows)
    ids = np.full((len(rows), length), value, np.int64)
    mask = np.zeros((len(rows), length), np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    return ids, mask


Tokenizer = Callable[[str, str | None, int], Encoding]
