"""Frozen linear layers in 8 or 4 bits a number, of bitsandbytes (Dettmers et al. 2022, arXiv:2208.07339; 2023, 2305.14314)."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Literal

from torch import nn

from pipeline.errors import ParamsError

Bits = Literal["4bit", "8bit"]


def quantise_layers(network: Any, bits: Bits) -> None:
    """Put quantised layers in place of a network's linear ones.

    Raises:
        ParamsError: bitsandbytes is not there.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ParamsError(f"quantise {bits} needs bitsandbytes; run `pip install bitsandbytes`, or leave quantise null.")
    bitsandbytes: Any = importlib.import_module("bitsandbytes")
    for name, layer in list(network.named_modules()):
        if not isinstance(layer, nn.Linear):
            continue
        kept, sizes, biased = layer.weight.data, (layer.in_features, layer.out_features), layer.bias is not None
        if bits == "4bit":
            made = bitsandbytes.nn.Linear4bit(*sizes, bias=biased, quant_type="nf4", compute_dtype=kept.dtype)
            made.weight = bitsandbytes.nn.Params4bit(kept, requires_grad=False, quant_type="nf4", module=made)
        else:
            made = bitsandbytes.nn.Linear8bitLt(*sizes, bias=biased, has_fp16_weights=False)
            made.weight = bitsandbytes.nn.Int8Params(kept, requires_grad=False, has_fp16_weights=False)
        if biased:
            made.bias = layer.bias
        owner, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(owner), leaf, made.requires_grad_(False))
    # The numbers shrink when they are moved, if only to where they are: a run that is read again may stay on the processor.
    network.to(next(network.parameters()).device)
    # By these PEFT knows which layers its own stand beside.
    network.is_loaded_in_4bit, network.is_loaded_in_8bit = bits == "4bit", bits == "8bit"
