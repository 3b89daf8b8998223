"""The two ends of a language model: the embeddings of its tokens, and what scores them.

`layers` reads what lies between.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, NamedTuple

from pipeline.errors import WeightsError

from . import gguf
from .layers import make_stand_in
from .load import state
from .source import config, locate, parse

if TYPE_CHECKING:
    import torch

_EMBEDDINGS = ("model.embed_tokens.weight", "embed_tokens.weight")
_HEAD = "lm_head.weight"


class Vocabulary(NamedTuple):
    """Of V tokens.

    Attributes:
        embeddings: (V, W). head: (V, W), the embeddings themselves where the model ties them.
        bos, end: ids of the tokens that a text begins and ends with; None where the configuration names none.
    """

    embeddings: torch.Tensor
    head: torch.Tensor
    bos: int | None
    end: int | None


@functools.lru_cache(maxsize=1)
def read_vocabulary(address: str, architecture: str, dtype: str = "float32") -> Vocabulary:
    """The ends of the language model at an address. Of a file, layers are not read; the last answer is kept.

    Args:
        architecture: JSON of a stand-in's.

    Raises:
        WeightsError: they are not there.

    >>> shape = {"vocab_size": 16, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    >>> found = read_vocabulary("random:0", json.dumps(shape))
    >>> found.embeddings.shape, found.head is found.embeddings, found.bos, found.end
    (torch.Size([16, 8]), True, 1, 2)
    """
    import torch

    source = parse(address)
    if source.random:
        # The tokenizer of stand-ins opens a text with 1 and closes it with 2.
        found, says = make_stand_in(source, json.loads(architecture)), {"bos_token_id": 1, "eos_token_id": 2}
    else:
        path = locate(source)
        says = config(path)
        found = gguf.state(path, _is_end) if path.suffix == gguf.SUFFIX else state(path, wanted=_is_end)
    embeddings = next((found[name] for name in _EMBEDDINGS if name in found), None)
    if embeddings is None:
        raise WeightsError(f"{address} has no embeddings ({_EMBEDDINGS[0]}); it is no language model, or a part of one.")
    embeddings = embeddings.to(getattr(torch, dtype))
    head = found[_HEAD].to(embeddings) if _HEAD in found and not says.get("tie_word_embeddings") else embeddings
    return Vocabulary(embeddings, head, _first(says.get("bos_token_id")), _first(says.get("eos_token_id")))


def _is_end(name: str) -> bool:
    return name in (*_EMBEDDINGS, _HEAD)


def _first(token: object) -> int | None:
    token = token[0] if isinstance(token, list) and token else token
    return token if isinstance(token, int) else None
