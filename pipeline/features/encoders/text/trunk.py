"""The trunk of a causal language model (LLaMA, SmolLM2, Qwen2, Mistral and the like): its lower layers, frozen, run once.

Rows are the hidden states after layer `options.depth` of a prompt that ends in the clip's own words; `fusion=llama` holds the
layers above and goes on from there (docs/llama.md). The first row is that of the prompt's first token, to which the layers
above pay much of their attention whatever it says (the attention sink; Xiao et al. 2023); its values are large, so that
nobody may standardise these rows. Then come the clip's own tokens, whose times are theirs, and the tokens that ask; rows of
the prompt last no time, and readers that want the words alone leave them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from pipeline import weights
from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders.extractor import Clip, Extractor, Prepared
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Count, Group, Number
from pipeline.weights import layers

from . import dialogue, language, tokens

#: Part of the identity: another wording is another feature.
INSTRUCTION = "You recognise emotions in conversation. Which emotion does the last speaker show?"
TURN = "\n{speaker}: "
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


def write_prompt(tokenizer: tokens.Words | tokens.Fast, clip: Clip, turns: int, limit: int) -> Prompt:
    """Instruction, earlier turns (oldest first), the clip's words, and what is asked, each part tokenised by itself.

    Where there is no room, the oldest words of earlier turns go first, then the clip's last.

    Raises:
        Missing: the clip has no transcript, or it has no token.
        ParamsError: `limit` has no room for the words that do not change.
    """
    text = tokens.transcript(clip)
    opening = tokenizer(INSTRUCTION, None, limit)
    # A marker that closes a text would close this one too early.
    head = opening.ids[: np.flatnonzero(opening.own)[-1] + 1]
    speaker = clip.speaker or NOBODY
    own = tokens.encode_plainly(tokenizer, text)
    name, cue = (tokens.encode_plainly(tokenizer, part.format(speaker=speaker)).ids for part in (TURN, CUE))
    room = limit - len(head) - len(name) - len(cue)
    if room < 1:
        raise ParamsError(f"trunk.options.max_length: {limit} tokens have no room for the instruction; take more.")
    ids, spans = own.ids[:room], own.spans[:room]
    earlier = "".join(TURN.format(speaker=turn.speaker or NOBODY) + turn.text.strip() for turn in _spoken(clip, turns))
    before = tokens.encode_plainly(tokenizer, earlier).ids if earlier else ids[:0]
    before = before[max(0, len(before) - (room - len(ids))) :]
    parts = [head, before, name, ids, cue]
    start = sum(len(part) for part in parts[:3])
    whole = np.concatenate(parts)
    mine = np.zeros(len(whole), bool)
    mine[start : start + len(ids)] = True
    places = np.zeros((len(whole), 2))
    places[mine] = spans
    return Prompt(whole, mine, places)


def _spoken(clip: Clip, turns: int) -> list:
    return [turn for turn in (clip.context[-turns:] if turns else ()) if turn.text and turn.text.strip()]


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
    return language.LanguageEncoder(layers.cut_above(network, depth).to(device), -1, device, use_cache=False)


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
                "prompt": [INSTRUCTION, TURN, CUE, NOBODY],
            },
        }
        prepare = Prepare(model.tokenizer, limit, options.turns, options.keep == "all")
        return Extractor(identity, prepare, partial(load, stream, model.kind, depth), budget=4096.0, turns=options.turns)
