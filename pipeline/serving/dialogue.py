"""The turns before a clip, as a model with a context takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from pipeline.features.encoders.extractor import Clip, Missing, Turn
from pipeline.models.batch import Inputs
from pipeline.params import Stream
from pipeline.runs.inputs import Before, Features, make_inputs
from pipeline.runs.run import TrainedModel
from pipeline.training.data.dialogues import number_voices


def name_voices(context: Sequence[Turn], speaker: str | None) -> list[int]:
    """Who speaks each turn, as seen from the clip that follows them; see `History.voices`.

    >>> name_voices([Turn("Eve", "Well?"), Turn("Ann", "No."), Turn(None, "Yes."), Turn("Ben", "Why?")], "Ann")
    [2, 0, -1, 1]
    """
    said = [*(turn.speaker for turn in context), speaker]
    names = sorted({name for name in said if name})
    codes = torch.tensor([[names.index(name) if name else -1 for name in said]])
    return number_voices(codes, len(context))[0, :-1].tolist()


def read_turn(turns: Sequence[Turn], stream: Stream) -> Clip:
    """The last of these turns, after the others, as the encoder of `stream` reads it.

    Raises:
        Missing: it is no encoder of text.
    """
    *before, last = turns
    if stream.modality != "text" or stream.encoder == "import":
        raise Missing("only the words of an earlier turn are known")
    return Clip("turn", text=last.text, speaker=last.speaker, context=tuple(before))


def ask(run: TrainedModel, features: dict[str, Features], before: Sequence[Before], voice: int) -> Inputs:
    """Of all that is known of a clip and the turns before it, what this model reads."""

    def choose(known: dict[str, Features]) -> dict[str, Features]:
        return {name: known[name] for name in run.streams if name in known}

    turns = [replace(turn, features=choose(turn.features)) for turn in before]
    return make_inputs(run, choose(features), turns, voice)
