"""A language model opened for questions about clips: its prompts, its rows, and what of it learns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from pipeline import weights
from pipeline.errors import ParamsError, StoreError
from pipeline.features.encoders.text import dialogue, language, tokens
from pipeline.models.composed.prompt import Ask, Tokeniser, Wrapped, wrap
from pipeline.models.composed.speaker import Speaker
from pipeline.params import Stream
from pipeline.runs.composed import Language, fit_projector, open_composed
from pipeline.serving.composed.items import Item, read_clip
from pipeline.storage.feature_store import Store
from pipeline.weights import vocabulary

from .examples import Example
from .settings import Settings


@dataclass(frozen=True)
class Tongue:
    """A tokenizer as answers need it.

    Attributes:
        decode: ids → text. spell: an id → what stands for it in a vocabulary, markers too.
        ends: any of them closes an answer. limit: places of the language model.
    """

    tokeniser: Tokeniser
    decode: Callable[[Sequence[int]], str]
    spell: Callable[[int], str]
    ends: tuple[int, ...]
    limit: int


def open_tongue(options: Language, known: Sequence[str] = ()) -> Tongue:
    """The tokenizer of a language model.

    Args:
        known: texts whose words a stand-in's tokenizer, which hashes them, can spell again.

    Raises:
        WeightsError: absent weights or tokenizer.
    """
    stream = Stream(modality="text", source="", encoder="trunk", weights=options.weights, architecture=options.architecture)
    opened = language.open_model(stream, "llama", dialogue.classes)
    ends = vocabulary.read_vocabulary(options.weights, json.dumps(options.architecture, sort_keys=True), options.dtype)
    said = {} if opened.source.random else weights.config(weights.locate(opened.source))
    listed = said.get("eos_token_id")
    closing = tuple(listed) if isinstance(listed, list) else () if ends.end is None else (ends.end,)
    tokeniser = Tokeniser(lambda text: opened.tokenizer.plain(text).ids, ends.bos, ends.end)
    limit = int(opened.config["max_position_embeddings"] or opened.limit)
    return Tongue(tokeniser, *make_decode(opened.tokenizer, known), closing, limit)


def make_decode(
    tokenizer: tokens.Words | tokens.Fast, known: Sequence[str]
) -> tuple[Callable[[Sequence[int]], str], Callable[[int], str]]:
    """Ids → text, and an id → itself in words; of hashed words those of `known` are spelt, others are numbers."""
    if isinstance(tokenizer, tokens.Fast):
        from tokenizers import Tokenizer

        whole = Tokenizer.from_str(tokenizer.json)
        return lambda ids: str(whole.decode(list(ids), skip_special_tokens=True)), lambda one: whole.id_to_token(one) or ""
    spelt: dict[int, str] = {}
    for text in known:
        found = tokenizer.plain(text)
        for number, (low, high) in zip(found.ids.tolist(), found.spans.astype(int).tolist(), strict=True):
            spelt.setdefault(number, text[low:high].lower())
    return lambda ids: " ".join(spelt.get(one, f"#{one}") for one in ids), lambda one: ""


@dataclass
class Tutor:
    """See the module.

    Attributes:
        speaker: on its device. clips: id → row of the manifest, without what nobody may know.
        report: hashes of what was loaded.
    """

    settings: Settings
    speaker: Speaker
    tongue: Tongue
    classes: tuple[str, ...]
    clips: dict[str, dict[str, Any]]
    stores: Mapping[str, Store]
    report: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        settings: Settings,
        table: pl.DataFrame,
        stores: Mapping[str, Store],
        classes: Sequence[str],
        device: str = "cpu",
        known: Sequence[str] = (),
    ) -> Tutor:
        """
        Raises:
            WeightsError: absent weights. StoreError: not one clip has a stream that is asked for.
        """
        options = settings.language
        with weights.seeded(settings.seed):
            model, report = open_composed(options, settings.projectors, list(stores))
            head = vocabulary.read_vocabulary(
                options.weights, json.dumps(options.architecture, sort_keys=True), options.dtype
            ).head
            clips = {str(row["id"]): row for row in table.iter_rows(named=True)}
            tutor = cls(settings, Speaker(model, head), open_tongue(options, known), tuple(classes), clips, stores, report)
            for name in stores:
                fit_projector(model, name, tutor._width(name), settings.projectors)
        tutor.speaker.to(device)
        for value in tutor.learned().values():
            value.requires_grad_(True)
        return tutor

    def _width(self, stream: str) -> int:
        store = {stream: self.stores[stream]}
        for row in self.clips.values():
            if found := read_clip(row, store).rows:
                return int(found[stream].shape[-1])
        raise StoreError(f"stream {stream}: its store has no rows of any clip; leave it out of streams, or extract it again.")

    @property
    def network(self) -> Any:
        """The layers, with adapters."""
        return self.speaker.model.language.network

    def learned(self) -> dict[str, Tensor]:
        """Adapters and projectors, by name."""
        adapters = {f"language.{name}": value for name, value in self.network.named_parameters() if "lora_" in name}
        beside: nn.Module = self.speaker.model.projectors
        return adapters | {f"projectors.{name}": value for name, value in beside.named_parameters()}

    def put_back(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `learned`."""
        with torch.no_grad():
            for name, value in self.learned().items():
                value.copy_(tensors[name])

    def ask(self, example: Example, question: int = 0, answer: str | None = None) -> tuple[Wrapped, dict[str, Tensor]]:
        """The prompt of an example, with its answer or without, and the clip's projected rows.

        Raises:
            ParamsError: it is longer than the language model takes.
        """
        item, task = self.item(example.clip), self.settings.tasks[example.task]
        words = task.questions[question].replace("{labels}", ", ".join(self.classes))
        asked = Ask(words, task.tag or example.task, item.text if self.settings.transcript else None)
        counts = {name: len(item.rows[name]) for name in self.stores if name in item.rows}
        try:
            prompt = wrap(self.tongue.tokeniser, counts, asked, self.settings.wording, answer=answer, limit=self.tongue.limit)
        except ParamsError as error:
            raise ParamsError(f"{example.clip}: {error}") from error
        return prompt, self.speaker.project({name: torch.from_numpy(values) for name, values in item.rows.items()})

    def item(self, clip: str) -> Item:
        """A clip's rows and words."""
        return read_clip(self.clips[clip], self.stores)

    def score(self, examples: Sequence[Example], questions: Sequence[int] | None = None) -> list[Tensor]:
        """(n,) log-likelihood of the tokens of each example's own answer, a batch."""
        asked = [
            self.ask(one, question, one.answer) for one, question in zip(examples, questions or [0] * len(examples), strict=True)
        ]
        return self.speaker.score([prompt for prompt, _ in asked], [rows for _, rows in asked])
