"""Mixing pairs of clips (Zhang et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.models.batch import Inputs, Targets, Tokens


def mix_inputs(inputs: Inputs, partner: Tensor, share: Tensor) -> Inputs:
    """Each clip's rows, `share` of its own and the rest of its partner's; a stream that either lacks stays as it is.

    Args:
        inputs: of one row per clip and stream. partner: (B,) places of the others. share: scalar in [0, 1].
    """
    return inputs._replace(streams={name: _mix(tokens, partner, share) for name, tokens in inputs.streams.items()})


def mix_targets(targets: Targets, partner: Tensor) -> Targets:
    """The truth of the partners (clip level)."""
    return Targets(
        targets.emotion[partner],
        targets.dimensions[partner],
        None,
        {name: codes[partner] for name, codes in targets.domain.items()},
        targets.weight[partner],
        targets.owner[partner],
        {name: rows[partner] for name, rows in targets.taught.items()},
        None if targets.several is None else targets.several[partner],
    )


def _mix(tokens: Tokens, partner: Tensor, share: Tensor) -> Tokens:
    both = (tokens.present & tokens.present[partner])[:, None, None]
    mixed = share * tokens.values + (1 - share) * tokens.values[partner]
    return tokens._replace(values=torch.where(both, mixed, tokens.values))
