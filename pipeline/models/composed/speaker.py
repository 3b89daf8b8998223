"""A language model that answers: how likely given answers are, and answers of its own, token by token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.errors import ParamsError
from pipeline.params.base import Count, Group, Number, Whole

from .model import Composed
from .prompt import ANSWER, Wrapped

Rows = Mapping[str, Tensor]
#: What has been said so far → ids that may come next; None = all.
Allowed = Callable[[Sequence[int]], Sequence[int]]


class Sampling(Group):
    """How the next token is drawn.

    temperature: 0 takes the likeliest. top_k: of so many of the likeliest. top_p: of the fewest whose shares reach it
    (Holtzman et al. 2020). max_tokens: of an answer. seed: of what is drawn.
    """

    temperature: Annotated[Number, Field(ge=0)] = 0.0
    top_k: Count | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] = 1.0
    max_tokens: Count = 64
    seed: Whole = Field(default=0, ge=0)


class Speaker(nn.Module):
    """See the module. V tokens, W the width.

    Args:
        head: (V, W), frozen; held, not copied.
    """

    head: Tensor

    def __init__(self, model: Composed, head: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("head", head, persistent=False)

    def project(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Composed.project`."""
        return self.model.project({name: values.to(self.head.device) for name, values in rows.items()})

    def weigh(self, states: Tensor) -> Tensor:
        """(..., W) → (..., V) float32 logits."""
        return nn.functional.linear(states.to(self.head.dtype), self.head).float()

    def score(self, wrapped: Sequence[Wrapped], projected: Sequence[Rows]) -> list[Tensor]:
        """(n,) log-likelihood of each token of each answer, its end included, given all before it.

        Logits are computed where something is answered alone: a vocabulary is wide.
        """
        states = self.model.language(*self.model.assemble(wrapped, projected))
        found = []
        for i, prompt in enumerate(wrapped):
            places = torch.from_numpy(prompt.places(ANSWER)).to(states.device)
            wanted = torch.from_numpy(prompt.labels[prompt.places(ANSWER)]).to(states.device)
            told = self.weigh(states[i, places - 1]).log_softmax(-1)
            found.append(told.gather(1, wanted[:, None])[:, 0])
        return found

    @torch.no_grad()
    def say(
        self,
        prompt: Wrapped,
        projected: Rows,
        sampling: Sampling,
        ends: Sequence[int],
        generator: torch.Generator | None = None,
        allowed: Allowed | None = None,
    ) -> list[int]:
        """Ids of an answer, without its end.

        Args:
            ends: any of them closes the answer. generator: of what is drawn, on the processor.

        Raises:
            ParamsError: the prompt leaves no room for an answer.
        """
        language = self.model.language
        if len(prompt) >= language.limit:
            raise ParamsError(
                f"a prompt of {len(prompt)} tokens, and the language model takes {language.limit}; shorten the text."
            )
        states, mask = self.model.assemble([prompt], [projected])
        cache, said = language.make_cache(), list[int]()
        last = language(states, mask, cache)[0, -1]
        while len(said) < sampling.max_tokens:
            logits = self.weigh(last).cpu()
            if allowed is not None:
                shut = torch.ones_like(logits, dtype=torch.bool)
                shut[list(allowed(said))] = False
                logits = logits.masked_fill(shut, float("-inf"))
            token = choose_token(logits, sampling, generator)
            if token in ends:
                break
            said.append(token)
            place = len(prompt) + len(said) - 1
            if place >= language.limit:
                break
            row = self.model.embeddings[token].float()[None, None]
            last = language(row, torch.ones(1, 1, dtype=torch.bool, device=row.device), cache, place)[0, -1]
        return said


def choose_token(logits: Tensor, sampling: Sampling, generator: torch.Generator | None = None) -> int:
    """An id from logits (V,); of equals the first.

    >>> choose_token(torch.tensor([0.0, 2.0, 1.0]), Sampling())
    1
    """
    if not sampling.temperature:
        return int(logits.argmax())
    order = logits.argsort(descending=True, stable=True)[: sampling.top_k]
    shares = (logits[order] / float(sampling.temperature)).softmax(0)
    # The token whose share reaches top_p is still in.
    shares = shares * (shares.cumsum(0) - shares < float(sampling.top_p))
    return int(order[torch.multinomial(shares, 1, generator=generator)])


def lose(scores: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Sum over samples of weight · mean negative log-likelihood of the answer's tokens.

    Args:
        scores: what `Speaker.score` gives. weights: (B,).
    """
    return -(torch.stack([one.mean() for one in scores]) * weights.to(scores[0].device)).sum()
