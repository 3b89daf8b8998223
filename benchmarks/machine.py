"""The machine the figures were taken on, without its name."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version


def describe() -> dict[str, object]:
    """Cores this process may use, memory, GPUs, versions, and the load other work made before the first benchmark."""
    import torch

    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1])
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**20, 1),
        "gpus": gpus,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "load_before": round(os.getloadavg()[0], 1),
    }
