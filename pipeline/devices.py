"""`run.device`, read in one place for every stage."""

from __future__ import annotations

from .errors import DeviceError


def pick_devices(name: str) -> list[str]:
    """Devices to run on: `auto` takes every GPU, else the processor; `cuda`, `cuda:1`, `cuda:0,cuda:2`, `cpu`.

    Raises:
        DeviceError: a GPU is asked for but absent, or the name is none.

    >>> pick_devices("cpu")
    ['cpu']
    """
    if name == "cpu":
        return ["cpu"]
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return [f"cuda:{i}" for i in range(count)] or ["cpu"]
    wanted = [f"cuda:{i}" for i in range(count)] if name == "cuda" and count else name.split(",")
    for device in wanted:
        index = device.removeprefix("cuda").removeprefix(":") or "0"
        if not device.startswith("cuda") or not index.isdigit():
            raise DeviceError(f"run.device is {name!r}; use auto, cpu, cuda, cuda:0 or cuda:0,cuda:1.")
        if int(index) >= count:
            raise DeviceError(f"run.device asks for {device}, but {count} GPUs are visible; use -S run.device=auto or cpu.")
    return wanted
