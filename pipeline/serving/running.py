"""A trunk's states turn by turn: only what is new runs through the lower layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipeline.features.encoders.extractor import Extractor, Turn
from pipeline.features.encoders.text import trunk
from pipeline.features.encoders.text.language import LanguageEncoder
from pipeline.features.encoders.transfer import to_device
from pipeline.features.engine.forward import Forward
from pipeline.runs.predict import Features
from pipeline.threads import computing


class RunningTrunk:
    """What `Extractor` and `Forward` of a trunk give for a dialogue's last turn, with the keys and values of earlier ones kept.

    The prompt grows turn by turn until it holds `window` earlier ones, or the model takes no more; then it begins again with as
    many as the trunk was made with. So what is said of a turn is what `trunk.write_prompt` with that many turns would give.

    Args:
        window: most earlier turns in a prompt; what the trunk was made with, at least.

    Attributes:
        turns: turns that the prompt spans now, silent ones too.
    """

    def __init__(self, extractor: Extractor, forward: Forward, window: int = 0) -> None:
        prepare, encoder = extractor.prepare, forward.encoder
        assert isinstance(prepare, trunk.Prepare) and isinstance(encoder, LanguageEncoder), "only a trunk runs on"
        self._prepare, self._encoder, self._threads = prepare, encoder, extractor.threads
        self.window = max(window, prepare.turns)
        self._cache: Any = None
        self._states: list[np.ndarray] = []
        self.turns = 0

    def forget(self) -> None:
        """Begin again at the next turn."""
        self._cache, self._states, self.turns = None, [], 0

    def pass_over(self) -> None:
        """A turn without words: it counts as one, as it does for the encoder."""
        self.turns += self._cache is not None

    def push(self, speaker: str | None, text: str, duration: float, context: Sequence[Turn] = ()) -> Features:
        """Rows (T, D) and times (T, 2) of a turn; it stays in the prompt.

        Args:
            context: all turns before it, oldest first; the last ones are read again where the prompt begins anew.

        Raises:
            Missing: nothing is said.
        """
        prepare = self._prepare
        own = trunk.write_turn(prepare.tokenizer, speaker, text)
        cue = trunk.write_cue(prepare.tokenizer, speaker)
        if self._cache is None or self.turns > self.window or self._room(own, cue) < 0:
            self._begin(context[-prepare.turns :] if prepare.turns else ())
        if self._room(own, cue) < 0:  # not even alone: as much as there is room for
            self._begin([])
            own = trunk.Utterance(own.name, own.words[: self._room(own, cue)], own.spans)
        self._states.append(self._run(own.name))
        start = self._length
        self._states.append(self._run(own.words))
        length = self._length
        asked = self._run(cue)
        self._cache.crop(-len(cue))
        self.turns += 1
        rows = np.concatenate([*self._states, asked])
        whole = len(rows)
        mine = np.zeros(whole, bool)
        mine[start:length] = True
        spans = np.zeros((whole, 2))
        spans[mine] = own.spans[: length - start]
        prompt = trunk.Prompt(np.zeros(whole, np.int64), mine, spans)
        kept = np.ones(whole, bool) if prepare.whole else prompt.kept
        return rows[kept], prompt.times(len(text), duration)[kept]

    @property
    def _length(self) -> int:
        return sum(len(part) for part in self._states)

    def _room(self, own: trunk.Utterance, cue: np.ndarray) -> int:
        return self._prepare.limit - self._length - len(own.name) - len(own.words) - len(cue)

    def _begin(self, turns: Sequence[Turn]) -> None:
        self.forget()
        from transformers import DynamicCache

        self._cache = DynamicCache(config=self._encoder.network.config)
        tokenizer = self._prepare.tokenizer
        spoken = trunk.choose_turns(turns, len(turns))
        earlier = [trunk.write_turn(tokenizer, turn.speaker, turn.text.strip()) for turn in spoken if turn.text]
        parts = [part for turn in earlier for part in (turn.name, turn.words)]
        self._states.append(self._run(np.concatenate([trunk.open_prompt(tokenizer, self._prepare.limit), *parts])))
        self.turns = len(turns)

    def _run(self, ids: np.ndarray) -> np.ndarray:
        """(T, D) float32 of new tokens, after all that is in the cache."""
        start = self._length
        places = torch.arange(start, start + len(ids), device=self._encoder.device)[None]
        with torch.inference_mode(), computing(self._threads):
            output = self._encoder.network(
                input_ids=to_device(ids[None], self._encoder.device),
                position_ids=places,
                past_key_values=self._cache,
                use_cache=True,
            )
        states: np.ndarray = output.last_hidden_state[0].float().cpu().numpy()
        return states
