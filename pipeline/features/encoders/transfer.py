"""Onto a device and back: page-locked copies that nothing waits for, and the layout convolutions like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


def to_device(value: np.ndarray | torch.Tensor, device: str) -> torch.Tensor:
    """`value` on `device`. A copy to a GPU goes through page-locked memory, so that the device's queue fills meanwhile."""
    import torch

    tensor = torch.as_tensor(value)
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def place_tower(model: Any, device: str) -> Any:
    """An image tower on `device`; on a GPU its convolutions are channels-last, as `Preprocessing.normalise` gives pixels.

    On a processor the layout stays: it gains nothing there, and features keep their last bits.
    """
    import torch

    model = model.to(device)
    return model.to(memory_format=torch.channels_last) if torch.device(device).type == "cuda" else model
