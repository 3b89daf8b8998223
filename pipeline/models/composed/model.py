"""A language model with a projector per stream: rows of a film go in among the tokens of a prompt, hidden states come out."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.models.language import LanguageModel

from .prompt import PLACE, Wrapped, collate


def make_projector(name: str, inputs: int, width: int, seed: int) -> nn.Linear:
    """A seeded stand-in that depends on its stream's name alone, not on which others there are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + zlib.crc32(name.encode()))
        return nn.Linear(inputs, width)


class Composed(nn.Module):
    """See the module. W is the language model's width.

    Args:
        language: all its layers, with adapters or without.
        embeddings: (V, W), frozen; they are held, not copied.
        projectors: of each stream, its width → W.
    """

    embeddings: Tensor

    def __init__(self, language: LanguageModel, embeddings: Tensor, projectors: Mapping[str, nn.Linear]) -> None:
        super().__init__()
        self.language, self.width = language, language.width
        self.register_buffer("embeddings", embeddings, persistent=False)
        self.projectors = nn.ModuleDict(projectors)

    def project(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Stream → (n, D) rows of one clip → (n, W) float32."""
        found = {}
        for name, values in rows.items():
            projector = self.projectors[name]
            found[name] = projector(values.to(next(projector.parameters()))).float()
        return found

    def assemble(self, wrapped: Sequence[Wrapped], projected: Sequence[Mapping[str, Tensor]]) -> tuple[Tensor, Tensor]:
        """States (B, L, W) float32 that go in, and mask (B, L): the prompts' embeddings, and the rows at their places.

        Raises:
            ValueError: a stream has not as many rows as places.
        """
        device = self.embeddings.device
        ids, mask = (torch.from_numpy(one).to(device) for one in collate(wrapped))
        states = self.embeddings[ids.clamp(min=0)].float() * mask[..., None]
        filled = ids != PLACE
        for i, (prompt, rows) in enumerate(zip(wrapped, projected, strict=True)):
            for name, values in rows.items():
                places = torch.from_numpy(prompt.places(name)).to(device)
                if len(places) != len(values):
                    raise ValueError(f"{name} has {len(values)} rows and {len(places)} places")
                states[i] = states[i].index_copy(0, places, values)
                filled[i, places] = True
        if not bool(filled.all()):
            raise ValueError("a place of the prompt has no row")
        return states, mask

    def forward(self, wrapped: Sequence[Wrapped], projected: Sequence[Mapping[str, Tensor]]) -> tuple[Tensor, ...]:
        """Hidden states (B, L, W): what goes in, then of each layer, the last after its norm; see `LanguageModel.trace`.

        Nothing of a clip depends on its neighbours.
        """
        return self.language.trace(*self.assemble(wrapped, projected))
