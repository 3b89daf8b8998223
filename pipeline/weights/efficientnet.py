"""State dicts of the EfficientNet of Melas-Kyriazi (`_conv_stem`, `_blocks.7._bn0`, …) → keys of timm's.

There the blocks are numbered through, and the same norm is called after the convolution that it follows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
#: A block without expansion has one convolution and one norm less.
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"} | _SQUEEZE
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
} | _SQUEEZE


def is_numbered_through(state: dict[str, Any]) -> bool:
    """Whether the keys are of that repository."""
    return "_conv_stem.weight" in state


def rename(state: dict[str, Any], stages: Sequence[int]) -> dict[str, Any]:
    """The state dict under timm's keys; keys that are not known stay, so that strict loading names them.

    Args:
        stages: blocks of each stage of the network.

    >>> rename({"_blocks.1._project_conv.weight": 0}, [1, 2])
    {'blocks.1.0.conv_pw.weight': 0}
    """
    places = [(stage, block) for stage, count in enumerate(stages) for block in range(count)]
    expanded = {key.split(".")[1] for key in state if "._expand_conv." in key}
    result = {}
    for key, value in state.items():
        if (found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)) and int(found[1]) < len(places):
            names = _EXPANDED if found[1] in expanded else _PLAIN
            stage, block = places[int(found[1])]
            result[f"blocks.{stage}.{block}.{names.get(found[2], found[2])}.{found[3]}"] = value
        else:
            part, _, kind = key.partition(".")
            result[f"{_OUTSIDE.get(part, part)}.{kind}" if kind else key] = value
    return result
