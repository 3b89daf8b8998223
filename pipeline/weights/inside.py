"""The encoder inside a checkpoint: what was saved around it (wrappers, heads, other towers) is told from it by names."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.errors import WeightsError

log = logging.getLogger(__name__)

#: What training programs put into names: parallel copies, compiled and sharded modules.
_WRAPPERS = re.compile(r"^(?:module\.)+|_orig_mod\.|_fsdp_wrapped_module\.|_checkpoint_wrapped_module\.")


def unwrap(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict without the wrappers that training programs put into its names.

    >>> unwrap({"module._orig_mod.norm.weight": 1, "model.norm.bias": 2})
    {'norm.weight': 1, 'model.norm.bias': 2}
    """
    return {_WRAPPERS.sub("", key): value for key, value in state.items()}


def locate(keys: Iterable[str], own: Iterable[str], origin: object) -> str:
    """The prefix under which a checkpoint holds a model, such as `hubert.`; empty where it holds it bare or not at all.

    Args:
        keys: names in the checkpoint.
        own: names in the model.

    Raises:
        WeightsError: it holds the model twice, as a student beside its teacher.

    >>> locate(["vit.norm.weight", "vit.norm.bias", "classifier.bias"], ["norm.weight", "norm.bias"], "x")
    'vit.'
    """
    keys, own = list(keys), set(own)
    found = Counter(key[: dot + 1] for key in keys for dot in _dots(key) if key[dot + 1 :] in own)
    if not found:
        return "model." if all(key.startswith("model.") for key in keys) else ""
    most = max(found.values())
    best = sorted(prefix for prefix, count in found.items() if count == most)
    if len(best) == 1 or "" in best:
        return best[0]
    if 2 * most < len(own):
        return ""  # names that any network may have
    raise WeightsError(
        f"{origin} holds this model {len(best)} times, under {' and '.join(best)}; save the one that is meant alone."
    )


def _dots(key: str) -> list[int]:
    return [-1, *(i for i, letter in enumerate(key) if letter == ".")]


def extract(state: Mapping[str, Any], own: Iterable[str], origin: object) -> tuple[dict[str, Any], list[str]]:
    """(the model's part under the model's names, names of the rest: heads, other towers).

    Where the model lies bare beside a head, nothing tells the two apart here: all is the model's part.

    Raises:
        WeightsError: see `locate`.
    """
    state = unwrap(state)
    prefix = locate(state, own, origin)
    inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return inside, [key for key in state if not key.startswith(prefix)]


def prefix_of(state: Mapping[str, Any], mark: str) -> str:
    """What stands before the one name that ends in `mark`; empty where there is no such name, or several.

    >>> prefix_of({"model.encoder.patch_embed.proj.weight": 1, "model.head.weight": 2}, "patch_embed.proj.weight")
    'model.encoder.'
    """
    found = [key.removesuffix(mark) for key in state if key == mark or key.endswith(f".{mark}")]
    return found[0] if len(found) == 1 else ""


def report(origin: object, names: Iterable[str]) -> None:
    """One line that names what is left out of a checkpoint."""
    if names := list(names):
        parts = sorted({re.sub(r"\.(?:weight|bias)$", "", ".".join(name.split(".")[:2])) for name in names})
        parts = sorted({part.partition(".")[0] for part in parts}) if len(parts) > 4 else parts
        log.info("%s: left out, the feature does not need it: %s (%d tensors)", origin, ", ".join(parts), len(names))
