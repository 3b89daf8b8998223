"""`run.device`, read in one place for every stage."""

from __future__ import annotations

import logging

from .errors import DeviceError

log = logging.getLogger(__name__)
#: Apple's GPU, for encoders alone: networks learn on processors and NVIDIA GPUs, where they learn the same bits again.
APPLE = "mps"


def pick_devices(name: str, *, encodes: bool = False) -> list[str]:
    """Devices to run on: `auto` takes every NVIDIA GPU, else the processor; `cuda`, `cuda:1`, `cuda:0,cuda:2`, `cpu`, `mps`.

    Args:
        encodes: it is for encoders, which may run on `mps`; all else is then done on the processor, and a line says so.

    Raises:
        DeviceError: a GPU is asked for but absent, or the name is none.

    >>> pick_devices("cpu")
    ['cpu']
    """
    if name == "cpu":
        return ["cpu"]
    import torch

    if name == APPLE:
        if not torch.backends.mps.is_available():
            raise DeviceError("run.device is mps, but torch sees no Apple GPU on this machine; use -S run.device=auto or cpu.")
        if not encodes:
            log.info("run.device mps is for encoders; this runs on the processor")
        return [APPLE if encodes else "cpu"]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return [f"cuda:{i}" for i in range(count)] or ["cpu"]
    wanted = [f"cuda:{i}" for i in range(count)] if name == "cuda" and count else name.split(",")
    for device in wanted:
        index = device.removeprefix("cuda").removeprefix(":") or "0"
        if not device.startswith("cuda") or not index.isdigit():
            raise DeviceError(f"run.device is {name!r}; use auto, cpu, cuda, cuda:0, cuda:0,cuda:1 or mps.")
        if int(index) >= count:
            raise DeviceError(f"run.device asks for {device}, but {count} GPUs are visible; use -S run.device=auto or cpu.")
    return wanted
