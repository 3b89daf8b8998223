"""What `torch.save` wrote, as arrays."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from pipeline.errors import WeightsError


def load(path: Path) -> Any:
    """The value, its tensors as arrays (bfloat16 as float32); nothing but tensors, containers, text and numbers is loaded.

    Raises:
        WeightsError: it holds something else, or is damaged.
    """
    import torch

    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{path} cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:120]}).") from error
    return _plain(value)


def _plain(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
