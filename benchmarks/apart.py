"""A function in a fresh process: its time, its peak memory, and a clip cache of its own."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Seconds between looks at the memory.
STEP = 0.01


@dataclass(frozen=True)
class Measured:
    """Wall seconds; peak resident and peak anonymous MiB (without pages of files, which the system may drop).

    Attributes:
        processor: seconds that the process computed for, without its children; other work on the machine hardly changes it.
    """

    seconds: float
    resident: float
    anonymous: float
    value: object = None
    processor: float = 0.0


def run(function: Callable, *args: object, cache: Path, isolated: bool = True) -> Measured:
    """Call `function(*args)` with the clip cache at `cache`; importable by name.

    The time is the function's, without the start of the process and with what the function imports.

    Args:
        isolated: in a fresh process; False = here, for tests (the peaks are then this process').
    """
    if not isolated:
        return _watched(function, args, cache)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, function, args, cache))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise RuntimeError(f"the process of {function.__name__} ended without a result") from None
    finally:
        process.join()
        ours.close()


def _serve(pipe, function: Callable, args: tuple, cache: Path) -> None:
    pipe.send(_watched(function, args, cache))


def _watched(function: Callable, args: tuple, cache: Path) -> Measured:
    before = os.environ.get("AFFECTORY_CACHE")
    os.environ["AFFECTORY_CACHE"] = str(cache)
    peaks, stop = {"RssAnon": 0, "VmRSS": 0}, threading.Event()
    watcher = threading.Thread(target=_watch, args=(peaks, stop), daemon=True)
    watcher.start()
    begun, busy = time.perf_counter(), time.process_time()
    try:
        value = function(*args)
        taken, busy = time.perf_counter() - begun, time.process_time() - busy
    finally:
        stop.set()
        watcher.join()
        if before is None:
            del os.environ["AFFECTORY_CACHE"]
        else:
            os.environ["AFFECTORY_CACHE"] = before
    return Measured(taken, peaks["VmRSS"] / 1024, peaks["RssAnon"] / 1024, value, busy)


def _watch(peaks: dict[str, int], stop: threading.Event) -> None:
    last = False
    while not last:
        last = stop.wait(STEP)
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                name, _, rest = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], int(rest.split()[0]))
