"""The trunk of a causal language model (LLaMA, SmolLM2, Qwen2, Mistral and the like): its lower layers, frozen, run once.

Rows are the hidden states after layer `options.depth` of a prompt that ends in the clip's own words; `fusion=llama` holds the
layers above and goes on from there (docs/llama.md). The first row is that of the prompt's first token, to which the layers
above pay much of their attention whatever it says (the attention sink; Xiao et al. 2023); its values are large, so that
nobody may standardise these rows. Then come the clip's own tokens, whose times are theirs, and the tokens that ask; rows of
the prompt last no time, and readers that want the words alone leave them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from pipeline import weights
from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders.extractor import Clip, Extractor, Prepared, Turn
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Count, Group, Number
from pipeline.weights import layers

from . import dialogue, language, tokens

#: Part of the identity: another wording is another feature.
INSTRUCTION = "You recognise emotions in conversation. Which emotion does the last speaker show?"
NAME = "\n{speaker}:"
WORDS = " {text}"
CUE = "\nThe emotion of {speaker} is"
NOBODY = "someone"


@dataclass(frozen=True)
class Prompt:
    """A prompt as tokens.

    Attributes:
        ids: (L,) int64. own: (L,) bool, the clip's words. spans: (L, 2) characters of the transcript, where `own`.
    """

    ids: np.ndarray
    own: np.ndarray
    spans: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """(L,) bool: the first token, the clip's own and those after them."""
        kept = np.arange(len(self.ids)) >= np.flatnonzero(self.own)[0]
        kept[0] = True
        return kept

    def times(self, characters: int, duration: float) -> np.ndarray:
        """(L, 2) seconds: own tokens as if every character took equally long, the prompt's no time, at the clip's ends."""
        first = np.flatnonzero(self.own)[0]
        times = np.where(np.arange(len(self.ids)) < first, 0.0, duration)[:, None].repeat(2, 1)
        times[self.own] = self.spans[self.own] / characters * duration
        return times.astype(np.float32)


@dataclass(frozen=True)
class Utterance:
    """A turn as tokens: ids of the name (N,), of the words (L,), and spans (L, 2), characters of the words."""

    name: np.ndarray
    words: np.ndarray
    spans: np.ndarray


def open_prompt(tokenizer: tokens.Words | tokens.Fast, limit: int) -> np.ndarray:
    """Ids (L,) of the instruction, after the token that the model's texts begin with."""
    opening = tokenizer(INSTRUCTION, None, limit)
    # A marker that closes a text would close this one too early.
    return opening.ids[: np.flatnonzero(opening.own)[-1] + 1]


def write_turn(tokenizer: tokens.Words | tokens.Fast, speaker: str | None, text: str) -> Utterance:
    """A turn; name and words are tokenised apart, so that a turn is the same tokens whatever is around it.

    Raises:
        Missing: the words have no token.
    """
    said = tokens.encode_plainly(tokenizer, WORDS.format(text=text))
    name = tokens.encode_plainly(tokenizer, NAME.format(speaker=speaker or NOBODY)).ids
    return Utterance(name, said.ids, (said.spans - (len(WORDS.format(text=text)) - len(text))).clip(min=0))


def write_cue(tokenizer: tokens.Words | tokens.Fast, speaker: str | None) -> np.ndarray:
    """Ids (L,) of what is asked."""
    return tokens.encode_plainly(tokenizer, CUE.format(speaker=speaker or NOBODY)).ids


def write_prompt(tokenizer: tokens.Words | tokens.Fast, clip: Clip, turns: int, limit: int) -> Prompt:
    """Instruction, earlier turns (oldest first), the clip's words, and what is asked, each part tokenised by itself.

    Where there is no room, the oldest words of earlier turns go first, then the clip's last.

    Raises:
        Missing: the clip has no transcript, or it has no token.
        ParamsError: `limit` has no room for the words that do not change.
    """
    own = write_turn(tokenizer, clip.speaker, tokens.transcript(clip))
    head, cue = open_prompt(tokenizer, limit), write_cue(tokenizer, clip.speaker)
    room = limit - len(head) - len(own.name) - len(cue)
    if room < 1:
        raise ParamsError(f"trunk.options.max_length: {limit} tokens have no room for the instruction; take more.")
    words = own.words[:room]
    earlier = [write_turn(tokenizer, turn.speaker, turn.text.strip()) for turn in choose_turns(clip.context, turns) if turn.text]
    before = np.concatenate([words[:0], *(part for turn in earlier for part in (turn.name, turn.words))])
    before = before[max(0, len(before) - (room - len(words))) :]
    parts = [head, before, own.name, words, cue]
    start = sum(len(part) for part in parts[:3])
    whole = np.concatenate(parts)
    mine = np.zeros(len(whole), bool)
    mine[start : start + len(words)] = True
    places = np.zeros((len(whole), 2))
    places[mine] = own.spans[: len(words)]
    return Prompt(whole, mine, places)


def choose_turns(context: Sequence[Turn], turns: int) -> list[Turn]:
    """Of the last `turns` those in which something is said."""
    return [turn for turn in (context[-turns:] if turns else ()) if turn.text and turn.text.strip()]


@dataclass(frozen=True)
class Prepare:
    """Clip → `ids` (L,) int64 and `rows` (L,) bool: the tokens that become rows."""

    tokenizer: tokens.Words | tokens.Fast
    limit: int
    turns: int
    whole: bool

    def __call__(self, clip: Clip) -> Prepared:
        prompt = write_prompt(self.tokenizer, clip, self.turns, self.limit)
        rows = np.ones(len(prompt.ids), bool) if self.whole else prompt.kept
        times = prompt.times(len(tokens.transcript(clip)), tokens.seconds(clip))[rows]
        return Prepared({"ids": prompt.ids, "rows": rows}, times, cost=float(len(prompt.ids)))


def load(stream: Stream, kind: str, depth: int, device: str = "cpu") -> language.LanguageEncoder:
    """The lower `depth` layers on `device`."""
    network = language.load_network(stream, kind, dialogue.classes, dropped=("lm_head", "score"))
    return language.LanguageEncoder(layers.cut_above(network, depth).to(device), (-1,), device, use_cache=False)


class Trunk(Family):
    """The lower layers of a causal language model; see the module."""

    title = "Lower layers of a causal language model, for `fusion=llama` (SmolLM2, LLaMA, Qwen2)"
    modalities = ("text",)
    sources = ("hf", "local", "package", "random")

    class Options(Group):
        """Of a stream."""

        #: How many layers: a number, or a share of all (below 1).
        depth: Annotated[Number, Field(ge=0)] = 0.5
        #: Earlier turns in the prompt.
        turns: language.Turns = 2
        #: Rows kept: the first token, the clip's own and the question, or also the context's.
        keep: Literal["own", "all"] = "own"
        #: Tokens of a prompt; null = what the model takes.
        max_length: Count | None = 512

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream.

        Raises:
            WeightsError: absent weights or tokenizer, another architecture.
            ParamsError: a length or depth out of range, or rows that would be mixed.
        """
        if stream.pooling != "none" or stream.rate is not None or stream.layer != -1:
            raise ParamsError("encoder trunk keeps the rows of options.depth: set pooling none, rate null and layer -1.")
        model = language.open_model(stream, "llama", dialogue.classes)
        if model.kind not in layers.KINDS:
            raise WeightsError(f"{model.source} is a {model.kind!r} model; a trunk can be cut from {', '.join(layers.KINDS)}.")
        depth = layers.resolve_depth(float(options.depth), int(model.config["num_hidden_layers"]), "trunk.options.depth")
        most = min(model.limit, model.config["max_position_embeddings"] or 10**6)
        limit = model.length(min(options.max_length, most) if options.max_length else None, 32, most)
        base = weights.identity(model.source, architecture=stream.architecture, libraries=language.LIBRARIES)
        identity = {
            "model": model.kind,
            "weights": base,
            "trunk": {"depth": depth, "base": layers.name_base(base)},
            "preprocessing": {
                "tokenizer": model.tokenizer.digest,
                "max_length": limit,
                "turns": options.turns,
                "keep": options.keep,
                "prompt": [INSTRUCTION, NAME, WORDS, CUE, NOBODY],
            },
        }
        prepare = Prepare(model.tokenizer, limit, options.turns, options.keep == "all")
        return Extractor(identity, prepare, partial(load, stream, model.kind, depth), budget=4096.0, turns=options.turns)
