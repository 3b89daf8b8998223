"""The connection to a Ray cluster, and what it offers. Ray is imported here, when it is asked for."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import DeviceError, ParamsError
from .params import Run
from .parts import OWN

#: Where a cluster that is started here listens: no other machine reaches it.
HERE = "127.0.0.1"


def load(address: str | None = "auto") -> ModuleType:
    """The library.

    Args:
        address: of the cluster it is for; null = one that is started here, and heard here alone.

    Raises:
        ParamsError: it is not installed.
    """
    # Python is started directly, not by `uv run`, and nothing is reported to Ray's makers. Both are read on import.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        # Else Ray takes the machine's own address for 127.0.0.1, and all its processes listen on every one.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ImportError:
        raise ParamsError("run.engine is ray, but Ray is not installed: python -m pip install -r requirements-ray.txt") from None
    return ray


@contextmanager
def connect(ray: ModuleType, address: str | None) -> Iterator[None]:
    """A connection to the cluster; one that was open already is used and left open.

    Raises:
        DeviceError: there is no cluster at that address.
    """
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": HERE} if address is None else {}
    if address not in (None, "auto"):
        _reach(address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address or "local", configure_logging=False, log_to_driver=False, **options)
    except (ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise DeviceError(
            f"run.ray_address {address or 'null'}: no Ray cluster ({' '.join(str(error).split())[:160]}); "
            "start one with `ray start --head`, or use -S run.ray_address=null."
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # Ray put its own in place, which leaves with another code and no word
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    # Ray itself would knock for a minute and then end the process.
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise DeviceError(f"run.ray_address is {address!r}; it takes null, auto or host:port of the head node.")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise DeviceError(
            f"run.ray_address {address}: nothing answers there ({error}); `ray start --head` on the head node prints the address."
        ) from None


def places(ray: ModuleType, options: Run) -> tuple[str, int]:
    """Device of an actor, and how many of them: one per GPU, else `run.workers` on processors.

    Raises:
        DeviceError: a GPU is asked for but absent.
    """
    if options.device not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"run.device is {options.device!r}; with run.engine=ray it is auto, cpu or cuda.")
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if options.device == "cuda" and not gpus:
        raise DeviceError("run.device is cuda, but the Ray cluster has no GPU; use -S run.device=auto or cpu.")
    return ("cuda", gpus) if gpus and options.device != "cpu" else ("cpu", max(1, options.workers))


def processors(ray: ModuleType, options: Run) -> list[str]:
    """Ids of the nodes of workers that need a processor alone: `run.workers` on each node, as far as it has processors.

    Nodes with a GPU are left to those who use it, where there are others.

    Raises:
        DeviceError: no node has a processor.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not nodes:
        raise DeviceError("no node of the Ray cluster has a processor; `ray status` shows what it has.")
    plain = [node for node in nodes if not node["Resources"].get("GPU")] or nodes
    return [node["NodeID"] for turn in range(max(1, options.workers)) for node in plain if turn < int(node["Resources"]["CPU"])]


def environment() -> dict[str, dict[str, str]]:
    """What a process on a node is started with: this code, and the folder of parts of one's own."""
    own = {OWN: str(Path(os.environ[OWN]).resolve())} if os.environ.get(OWN) else {}
    return {"env_vars": {"PYTHONPATH": str(Path(__file__).parents[1]), **own}}


def enter(folder: str) -> None:
    """On a node: work in the project's folder.

    Raises:
        DeviceError: the node does not see it.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        raise DeviceError(
            f"Ray node {socket.gethostname()} does not see {folder} ({error.strerror}); "
            "run.engine=ray needs the project at one path on every node."
        ) from None
