"""Loading that is strict: a model is covered whole, or there is an error; and seeded stand-ins.

Code that comes with weights is never run, and pickled weights load with `weights_only=True`.
"""

from __future__ import annotations

import argparse
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import WeightsError

from . import ctranslate2, intact
from .listing import files

if TYPE_CHECKING:
    import torch


#: Where training programs put the state dict, beside optimisers and counters; the first found is taken.
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "network", "net")


def check_coverage(
    origin: object, model: Iterable[str], missing: Iterable[str], unexpected: Iterable[str], *, dropped: Sequence[str] = ()
) -> None:
    """Raise unless the checkpoint fills the model and holds nothing else.

    Args:
        origin: names the weights in the message.
        model: all keys of the model.
        missing: keys of the model the checkpoint lacks.
        unexpected: keys of the checkpoint the model lacks.
        dropped: prefixes of checkpoint keys that are rightly left out (heads, the text tower of CLIP).

    Raises:
        WeightsError: names some keys and the share of the model that is covered.
    """
    # A counter that batch normalisation keeps for training; many checkpoints leave it out.
    model, missing = set(model), sorted(key for key in missing if not key.endswith("num_batches_tracked"))
    strange = sorted(key for key in unexpected if not key.startswith(tuple(dropped)))
    if not missing and not strange:
        return
    share = 100 * (1 - len(missing) / max(1, len(model)))
    parts = []
    for word, keys in (("missing", missing), ("unexpected", strange)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            parts.append(f"{len(keys)} {word} ({', '.join(keys[:3])}{more})")
    if share < 50:
        reason = "It is another architecture; choose the family that fits it."
    elif missing:
        reason = "The copy is not whole, or of another release of this architecture; fetch it again, or choose another family."
    else:
        reason = "It has parts that this architecture does not have; choose the family that fits it."
    raise WeightsError(f"{origin} covers {share:.1f} % of the model: {'; '.join(parts)}. {reason}")


def state(path: Path, first: Sequence[str] = (), *, wanted: Callable[[str], bool] | None = None) -> dict[str, torch.Tensor]:
    """State dict of one file or of a folder's weight files, without running pickled code.

    Args:
        first: as in `files`. wanted: by its name, whether a tensor is; of safetensors, others are not read at all.

    Raises:
        WeightsError: a file is damaged, or a pickle that needs code to run.
    """
    import safetensors
    import torch

    if ctranslate2.is_folder(path):
        return ctranslate2.state(path)
    result: dict[str, torch.Tensor] = {}
    part: Any
    for file in files(path, first):
        intact.check(file)
        try:
            # Training checkpoints keep their command line; a Namespace holds values and runs nothing.
            with torch.serialization.safe_globals([argparse.Namespace]):
                part = (
                    _read_safetensors(file, wanted)
                    if file.suffix == ".safetensors"
                    else torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
                )
        except (
            safetensors.SafetensorError,
            pickle.UnpicklingError,
            struct.error,
            RuntimeError,
            EOFError,
            OSError,
            LookupError,
            ValueError,
            AttributeError,
            TypeError,
            MemoryError,
            RecursionError,
        ) as error:
            cut = isinstance(error, (EOFError, IndexError, struct.error)) or "EOF" in str(error)
            raise WeightsError(
                f"{file} is half a download, or damaged; fetch it again."
                if cut
                else f"{file} cannot be read as weights ({type(error).__name__}: {' '.join(str(error).split())[:120]})."
            ) from error
        if not isinstance(part, dict):
            raise WeightsError(f"{file} holds a {type(part).__name__}, not a state dict; save model.state_dict().")
        while inside := next((part[name] for name in WRAPPERS if isinstance(part.get(name), dict)), None):
            part = inside
        result.update({key: value for key, value in part.items() if isinstance(value, torch.Tensor)})
    return {key: value for key, value in result.items() if wanted is None or wanted(key)}


def _read_safetensors(file: Path, wanted: Callable[[str], bool] | None) -> dict[str, torch.Tensor]:
    import safetensors

    with safetensors.safe_open(file, framework="pt") as tensors:
        return {key: tensors.get_tensor(key) for key in tensors.keys() if wanted is None or wanted(key)}  # noqa: SIM118


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's generator seeded inside, untouched outside."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
