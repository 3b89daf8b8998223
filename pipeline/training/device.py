"""Where training runs."""

from __future__ import annotations

import torch

from ..errors import DeviceError


def resolve(name: str) -> torch.device:
    """`auto` is the first GPU when there is one, else the CPU.

    Raises:
        DeviceError: the device is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"run.device {name!r} is not a device; give auto, cpu, cuda or cuda:<number>.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"run.device is {name!r}, but {torch.cuda.device_count()} GPUs are visible. "
                          "Set run.device to auto or cpu.")
    return device
