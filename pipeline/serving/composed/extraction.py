"""Films → projected rows and hidden states of a language model, a batch at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch

from pipeline.errors import ParamsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.text import dialogue, language
from pipeline.models.composed.prompt import Ask, Tokeniser, Wrapped, wrap
from pipeline.models.composed.readout import Absent
from pipeline.params import Stream
from pipeline.runs.composed import Language, fit_projector, open_composed
from pipeline.storage.feature_store import Entry, Status
from pipeline.threads import computing
from pipeline.weights import vocabulary

from .items import Item
from .settings import Settings, is_image

#: The hidden states.
STATES = "llama_features"


def name_output(stream: str) -> str:
    """What the projected rows of a stream are called."""
    return f"{stream}_projected"


def open_tokeniser(options: Language) -> tuple[Tokeniser, int]:
    """The tokenizer of a language model, and how many places the model has.

    Raises:
        WeightsError: absent weights or tokenizer.
    """
    stream = Stream(modality="text", source="", encoder="trunk", weights=options.weights, architecture=options.architecture)
    opened = language.open_model(stream, "llama", dialogue.classes)
    ends = vocabulary.read_vocabulary(options.weights, json.dumps(options.architecture, sort_keys=True), options.dtype)
    limit = int(opened.config["max_position_embeddings"] or opened.limit)
    return Tokeniser(lambda text: opened.tokenizer.plain(text).ids, ends.bos, ends.end), limit


class Extraction:
    """Settings, opened.

    Attributes:
        model: moved to the device. identity: all that decides the features, with hashes of what was loaded.

    Raises:
        ParamsError: a readout that no prompt has. WeightsError: see `open_composed`.
    """

    def __init__(self, settings: Settings, device: str = "cpu") -> None:
        self.settings, self.device = settings, device
        streams = settings.find_streams()
        self.tokeniser, self.limit = open_tokeniser(settings.language)
        self.model, loaded = open_composed(settings.language, settings.projectors, list(streams))
        settings.readout.check(streams, int(loaded["language"]["layers"]))
        self.model.to(device)
        asked = settings.model_dump(
            mode="json", include={"question", "task", "wording", "readout", "image", "language", "decode"}
        )
        encoders = {name: registry.build(stream).identity for name, stream in streams.items()}
        self.identity = {**asked, "loaded": loaded, "streams": encoders}

    @property
    def outputs(self) -> list[str]:
        """Their names."""
        return [*(name_output(name) for name in self.settings.streams), STATES]

    @property
    def random(self) -> list[str]:
        """What of it is a stand-in that learned nothing."""
        named = {"language": self.settings.language.weights, "projectors": self.settings.projectors}
        named |= {name: stream.weights for name, stream in self.settings.find_streams().items()}
        return [name for name, address in named.items() if address.startswith("random:")]

    def __call__(self, items: Sequence[Item]) -> list[dict[str, Entry]]:
        """The outputs of each film by name; nothing of one depends on the others.

        Raises:
            ParamsError: a stream whose rows its projector does not take.
        """
        with computing(self.settings.threads), torch.inference_mode():
            projected = [self._project(item) for item in items]
            prompts = [self._wrap(item) for item in items]
            asked = [i for i, prompt in enumerate(prompts) if isinstance(prompt, Wrapped)]
            states = dict(zip(asked, self._read([prompts[i] for i in asked], [projected[i] for i in asked]), strict=True))
            found = []
            for i, item in enumerate(items):
                said = states.get(i, prompts[i])
                result = {name_output(name): self._keep(item, name, projected[i].get(name)) for name in self.settings.streams}
                whole = said if isinstance(said, torch.Tensor) else None
                found.append(result | {STATES: self._pack(item, whole, said if isinstance(said, tuple) else None)})
        return found

    def _project(self, item: Item) -> dict[str, torch.Tensor]:
        for name, values in item.rows.items():
            fit_projector(self.model, name, values.shape[-1], self.settings.projectors)
        return self.model.project({name: torch.from_numpy(values).to(self.device) for name, values in item.rows.items()})

    def _wrap(self, item: Item) -> Wrapped | tuple[Status, str]:
        """The prompt, or why there is none."""
        if not item.rows:
            failed = [one for one in item.lacks.values() if one[0] == Status.FAILED]
            return (failed or [*item.lacks.values(), (Status.MISSING, "the film has no stream")])[0]
        rows = {name: len(item.rows[name]) for name in self.settings.streams if name in item.rows}
        ask = Ask(self.settings.question, self.settings.task, item.text)
        try:
            return wrap(self.tokeniser, rows, ask, self.settings.wording, limit=self.limit)
        except ParamsError as error:
            return Status.FAILED, str(error)

    def _read(self, prompts: Sequence, projected: Sequence[dict]) -> list[torch.Tensor | tuple[Status, str]]:
        """(k, W) of each prompt, or why not."""
        if not prompts:
            return []
        trace = self.model(prompts, projected)
        found: list[torch.Tensor | tuple[Status, str]] = []
        for i, prompt in enumerate(prompts):
            try:
                found.append(self.settings.readout.read([layer[i] for layer in trace], prompt))
            except Absent as error:
                found.append((Status.MISSING, str(error)))
        return found

    def _keep(self, item: Item, name: str, rows: torch.Tensor | None) -> Entry:
        if rows is None:
            return _lack(*item.lacks.get(name, (Status.MISSING, "the film has none")))
        mean = is_image(name) and self.settings.image == "mean"
        # A picture's rows belong together; another stream has one.
        values = rows.mean(0, keepdim=True) if mean else rows[None] if is_image(name) else rows
        return _have(item, values)

    def _pack(self, item: Item, states: torch.Tensor | None, why: tuple[Status, str] | None) -> Entry:
        if states is None:
            return _lack(*(why or (Status.MISSING, "")))
        # Of a prompt's whole length each row is one of its own; else every film has as many, and they belong together.
        return _have(item, states if self.settings.readout.rows == "all" else states[None])


def _have(item: Item, values: torch.Tensor) -> Entry:
    found = values.float().cpu().numpy()
    if not np.isfinite(found).all():
        return _lack(Status.FAILED, "the language model returned values that are not finite; take dtype float32 or bfloat16")
    return Entry(found, np.tile(np.array([0.0, item.duration], np.float32), (len(found), 1)))


def _lack(status: Status, reason: str) -> Entry:
    return Entry(np.empty((0,), np.float32), np.empty((0, 2), np.float32), status, reason)
